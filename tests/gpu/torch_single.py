"""Section `single` of `broker.py`: PyTorch programs by themselves, under each limit in turn, in one process."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench import Bench
from torch_live import Pool, Slice, between, mean, paced

WORKS = ("layer", "train", "decode", "matmul")
LIMITS = (99, 80, 50, 20)
WARM_S, SLICE_S = 0.1, 0.3


def single(pool: Pool, seconds: float) -> None:
    """Each work in a process of its own, one at a time: without a limit, under each, and again."""
    bench = pool.node.bench
    works = [work for work in WORKS if re.search(bench.match, work)]
    states = (0, *LIMITS)
    rounds = max(2, round(seconds / len(works) / len(states) / (WARM_S + SLICE_S)))
    for work, program in zip(works, pool.programs, strict=False):
        queued_s = program.told("queued", work)[0]
        (slices,) = paced([(program, work)], WARM_S, SLICE_S, [states * rounds])
        had = {state: slices[at :: len(states)] for at, state in enumerate(states)}
        launch_s = {limit: program.told("launch", work, limit)[0] for limit in LIMITS} if work == "matmul" else {}
        judge(bench, work, had, queued_s, launch_s)


def judge(
    bench: Bench, work: str, had: Mapping[int, Sequence[Slice]], queued_s: float, launch_s: Mapping[int, float]
) -> None:
    """`launch_s`: what one call takes under each limit: what the card's power holds back is faster when it rests."""
    busy = min(1.0, queued_s * mean(had[0]))
    for limit in LIMITS:
        ideal = min(100.0, limit / busy)
        speed, low, high = (each * 100 for each in between(*([one.rate for one in had[each]] for each in (limit, 0))))
        measured, target, ok = f"{speed:.1f} (ideal {ideal:.1f})", "within 4 % of ideal", abs(speed / ideal - 1) <= 0.04
        if ideal == 100.0:
            target, ok = ">= 96 % of solo", speed >= 96
        elif limit in launch_s:
            used = mean(had[limit]) * launch_s[limit] * 100
            measured = f"{used:.1f} of the time ({speed:.1f} of speed)"
            target, ok = f"{limit} +- 2 of the time", abs(used - limit) <= 2
        name = f"{work} at {limit} (alone {busy * 100:.0f} % busy)"
        bench.add("torch", name, measured, target, ok, interval=[low, high], **told(had, limit, queued_s, launch_s))


def told(
    had: Mapping[int, Sequence[Slice]], limit: int, queued_s: float, launch_s: Mapping[int, float]
) -> dict[str, Any]:
    return {
        "rates": [[round(one.rate, 1) for one in had[each]] for each in (limit, 0)],
        "paid_us": statistics.mean(one.paid_ns for one in had[limit]) / 1e3,
        "queued_us": queued_s * 1e6,
        "launch_us": launch_s.get(limit, 0) * 1e6,
    }
