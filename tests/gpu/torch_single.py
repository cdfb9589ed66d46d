"""Section `single` of `broker.py`: PyTorch programs by themselves, under each limit in turn, in one process."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import Bench
from torch_live import Live, Pool, Slice, between, paced

WORKS = ("layer", "train", "decode")
LIMITS = (99, 80, 50, 20)
STATES = tuple(state for limit in LIMITS for state in (0, limit))
"""One without a limit before and after each: a host is as fast as it is for half a second."""
SLICES_S = {"layer": (0.06, 0.12), "train": (0.06, 0.2), "decode": (0.06, 0.12)}
"""How long a slice warms up, and is measured: short where the host scatters, long where kernels of one key do."""
LEAST_ROUNDS = 5
"""Of fewer an interval says too much."""
STEADY_S = 0.8
"""A card that its power holds back is at one speed after so long."""
LEAST, MOST = 0.96, 1.04
"""Of what is due."""


def single(pool: Pool, seconds: float) -> None:
    """Each work in a process of its own, one at a time: under each limit, and without one before and after it."""
    bench = pool.node.bench
    works = [work for work in WORKS if re.search(bench.match, work)]
    for work, program in zip(works, pool.programs, strict=False):
        warm_s, slice_s = SLICES_S[work]
        rounds = max(LEAST_ROUNDS, round(seconds / len(works) / len(STATES) / (warm_s + slice_s)))
        queued_s = program.told("queued", work)[0]
        (slices,) = paced([(program, work)], warm_s, slice_s, [(*STATES * rounds, 0)])
        judge(bench, work, neighbours(slices), queued_s)
    if re.search(bench.match, "matmul"):
        power_limited(bench, pool.programs[-1])


@dataclass
class Beside:
    """A slice under a limit, and the rates without one just before and after it."""

    held: Slice
    free: tuple[float, float]


def neighbours(slices: Sequence[Slice]) -> dict[int, list[Beside]]:
    """By limit, of slices in the order of STATES, with one without a limit at the end."""
    found: dict[int, list[Beside]] = {limit: [] for limit in LIMITS}
    for at in range(1, len(slices) - 1, 2):
        beside = (slices[at - 1].rate, slices[at + 1].rate)
        found[STATES[at % len(STATES)]].append(Beside(slices[at], beside))
    return found


def judge(bench: Bench, work: str, had: Mapping[int, Sequence[Beside]], queued_s: float) -> None:
    """
    Due is what the limit lets it have, or what it has beside without one where that is less. A row holds or fails where
    the whole interval does: nearly all that is due, and hardly more than the limit; else it says neither.
    """
    for limit, slices in had.items():
        held, cap = [each.held.rate for each in slices], limit / 100 / queued_s
        free = [statistics.mean(each.free) for each in slices]
        due = [statistics.mean(min(one, cap) for one in each.free) for each in slices]
        part, low, high = between(held, due)
        _, over_low, over_high = between(held, [cap] * len(held))
        ideal = sum(due) / sum(free)
        ok = True if low >= LEAST and over_high <= MOST else False if high < LEAST or over_low > MOST else None
        percent = [each * ideal * 100 for each in (part, low, high)]
        measured = "{:.1f} ({:.1f} to {:.1f}".format(*percent) + (")" if ideal == 1 else f", ideal {ideal * 100:.1f})")
        target = ">= 96 % of solo" if ideal == 1 else "within 4 % of ideal"
        busy = min(1.0, queued_s * statistics.mean(free)) * 100
        told = {
            "rates": [round(each, 1) for each in held],
            "beside": [[round(one, 1) for one in each.free] for each in slices],
            "paid_us": statistics.mean(each.held.paid_ns for each in slices) / 1e3,
            "queued_us": queued_s * 1e6,
        }
        bench.add("torch", f"{work} at {limit} (alone {busy:.0f} % busy)", measured, target, ok, **told)


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
