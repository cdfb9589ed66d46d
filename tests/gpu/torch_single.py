"""Section `single` of `broker.py`: PyTorch programs by themselves, under each limit in turn, in one process."""

import re
import statistics
from collections.abc import Mapping, Sequence

from bench import Bench
from torch_live import Live, Pool, Slice, between, mean, paced

WORKS = ("layer", "train", "decode")
LIMITS = (99, 80, 50, 20)
WARM_S, SLICE_S = 0.1, 0.3
STEADY_S = 0.8
"""A card that its power holds back is at one speed after so long."""


def single(pool: Pool, seconds: float) -> None:
    """Each work in a process of its own, one at a time: without a limit, under each, and again."""
    bench = pool.node.bench
    works = [work for work in WORKS if re.search(bench.match, work)]
    states = (0, *LIMITS)
    for work, program in zip(works, pool.programs, strict=False):
        rounds = max(2, round(seconds / len(works) / len(states) / (WARM_S + SLICE_S)))
        queued_s = program.told("queued", work)[0]
        (slices,) = paced([(program, work)], WARM_S, SLICE_S, [states * rounds])
        judge(bench, work, {state: slices[at :: len(states)] for at, state in enumerate(states)}, queued_s)
    if re.search(bench.match, "matmul"):
        power_limited(bench, pool.programs[-1])


def judge(bench: Bench, work: str, had: Mapping[int, Sequence[Slice]], queued_s: float) -> None:
    """Held to what the limit lets it have; where that is more than it has alone, it fails when it surely has less."""
    busy = min(1.0, queued_s * mean(had[0]))
    for limit in LIMITS:
        ideal = min(100.0, limit / busy)
        speed, low, high = (each * 100 for each in between(*([one.rate for one in had[each]] for each in (limit, 0))))
        measured, target, ok = f"{speed:.1f} (ideal {ideal:.1f})", "within 4 % of ideal", abs(speed / ideal - 1) <= 0.04
        if ideal == 100.0:
            measured, target, ok = f"{speed:.1f} ({low:.1f} to {high:.1f})", ">= 96 % of solo", high >= 96
        name = f"{work} at {limit} (alone {busy * 100:.0f} % busy)"
        rates = {each: [round(one.rate, 1) for one in had[each]] for each in (limit, 0)}
        paid_us = statistics.mean(one.paid_ns for one in had[limit]) / 1e3
        bench.add("torch", name, measured, target, ok, rates=rates, paid_us=paid_us, queued_us=queued_s * 1e6)


def power_limited(bench: Bench, program: Live) -> None:
    """Large products: the more the card rests the faster they are, so it is the time they take that is judged."""
    had = {limit: program.told("steady", "matmul", STEADY_S, limit) for limit in (0, *LIMITS)}
    solo, launch_s = had[0]
    for limit in LIMITS:
        rate, took_s = had[limit]
        used = rate * took_s * 100
        measured, target, ok = f"{used:.1f} of the time", f"{limit} +- 2 of the time", abs(used - limit) <= 2
        if limit == LIMITS[0]:
            target, ok = ">= 96 % of solo", rate >= 0.96 * solo
        name = f"matmul at {limit} (alone {solo * launch_s * 100:.0f} % busy)"
        bench.add("torch", name, f"{measured} ({rate / solo * 100:.1f} of speed)", target, ok, had=had)
