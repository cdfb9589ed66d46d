"""Section `single` of `broker.py`: PyTorch programs by themselves, under each limit in turn, in one process.

What a program occupies is its rate times what the launches of one iteration take back to back, as the card runs them
just after that slice: a card that its power holds back runs faster under a limit than without one. So neither the speed
without a limit nor the library's own prices decide what is too much.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import Bench
from torch_live import Live, Pool, Slice, between, held

WORKS = ("layer", "train", "decode")
LIMITS = (99, 80, 50, 20)
STATES = tuple(state for limit in LIMITS for state in (0, limit))
"""One without a limit before and after each: a host is as fast as it is for half a second."""
SLICES_S = {"layer": (0.01, 0.03), "train": (0.06, 0.2), "decode": (0.01, 0.03)}
"""How long a slice warms up, and is measured: short where the host scatters, long where kernels of one key do."""
PARTS = {"layer": 1, "train": 3, "decode": 1}
"""Of the time there is."""
LOOK_S = 0.012
"""What each takes beyond that, about."""
LEAST_ROUNDS = 5
"""Of fewer an interval says too much."""
STEADY_S = 1.5
"""A card that its power holds back is at one speed after so long."""
LEAST = 0.98
"""Of what is due."""
MOST_POINTS, MOST_PART = 1.0, 1.04
"""By which what is occupied may be above the limit, whichever is less."""
CONTROL = 80
"""Slices without a limit, judged as if they had been under this one, must be found to be above it."""


def single(pool: Pool, seconds: float) -> None:
    """Each work in a process of its own, one at a time: under each limit, and without one before and after it."""
    bench = pool.node.bench
    works = [work for work in WORKS if re.search(bench.match, work)]
    for work, program in zip(works, pool.programs, strict=False):
        warm_s, slice_s = SLICES_S[work]
        own_s = seconds * PARTS[work] / sum(PARTS[each] for each in works)
        rounds = max(LEAST_ROUNDS, round(own_s / len(STATES) / (warm_s + slice_s + LOOK_S)))
        judge(bench, work, neighbours(held(program, work, (warm_s, slice_s), (*STATES * rounds, 0))))
    if re.search(bench.match, "matmul"):
        power_limited(bench, pool.programs[-1])


@dataclass
class Beside:
    """A slice under a limit, and those without one just before and after it."""

    held: Slice
    free: tuple[Slice, Slice]

    @property
    def free_rate(self) -> float:
        return (self.free[0].rate + self.free[1].rate) / 2


def neighbours(slices: Sequence[Slice]) -> dict[int, list[Beside]]:
    """By limit, of slices in the order of STATES, with one without a limit at the end."""
    found: dict[int, list[Beside]] = {limit: [] for limit in LIMITS}
    for at in range(1, len(slices) - 1, 2):
        found[STATES[at % len(STATES)]].append(Beside(slices[at], (slices[at - 1], slices[at + 1])))
    return found


@dataclass
class Had:
    """What a program had under a limit, percent with the 95 % interval: of its speed, and of the card."""

    speed: tuple[float, float, float]
    ideal: float
    occupied: tuple[float, float, float]
    ok: bool | None


def weigh(limit: float, slices: Sequence[Beside]) -> Had:
    """
    Due is what the limit lets it have, or what it has beside without one where that is less. It holds or fails where
    the whole interval does: nearly all that is due, and hardly more of the card than the limit; else it says neither.
    """
    rates, took_s = [each.held.rate for each in slices], typical([each.held for each in slices])
    cap = limit / 100 / took_s
    free = [each.free_rate for each in slices]
    due = [(min(each.free[0].rate, cap) + min(each.free[1].rate, cap)) / 2 for each in slices]
    part, low, high = between(rates, due)
    over = between(rates, [cap] * len(rates))
    most = min(MOST_PART, (limit + MOST_POINTS) / limit)
    ok = True if low >= LEAST and over[2] <= most else False if high < LEAST or over[1] > most else None
    ideal = sum(due) / sum(free)
    speed = part * ideal * 100, low * ideal * 100, high * ideal * 100
    return Had(speed, ideal * 100, (over[0] * limit, over[1] * limit, over[2] * limit), ok)


def typical(slices: Sequence[Slice]) -> float:
    """Seconds that the launches of one iteration took in a queue, where their host was there."""
    return statistics.median(each.queued_s for each in slices if not math.isnan(each.queued_s))


def judge(bench: Bench, work: str, had: Mapping[int, Sequence[Beside]]) -> None:
    for limit, slices in had.items():
        got = weigh(limit, slices)
        free = [one for each in slices for one in each.free]
        alone = statistics.mean(one.rate for one in free) * typical(free) * 100
        ideal = "" if got.ideal > 99.9 else f", ideal {got.ideal:.1f}"
        measured = "{:.1f} ({:.1f} to {:.1f}{}), occupied {:.1f}".format(*got.speed, ideal, got.occupied[0])
        target = f">= {LEAST * 100:.0f} % of ideal, occupied <= {min(limit + MOST_POINTS, limit * MOST_PART):.1f}"
        told = {
            "rates": [round(each.held.rate, 1) for each in slices],
            "beside": [[round(one.rate, 1) for one in each.free] for each in slices],
            "paid_us": statistics.mean(each.held.paid_ns for each in slices) / 1e3,
            "queued_us": typical([each.held for each in slices]) * 1e6,
            "queued_free_us": typical(free) * 1e6,
            "occupied": got.occupied,
        }
        bench.add("torch", f"{work} at {limit} (alone {min(alone, 100):.0f} % busy)", measured, target, got.ok, **told)
        if limit == CONTROL and alone > CONTROL + 2 * MOST_POINTS:
            control(bench, work, slices)


def control(bench: Bench, work: str, slices: Sequence[Beside]) -> None:
    """The same check, of a program that no limiter held."""
    got = weigh(CONTROL, [Beside(each.free[0], each.free) for each in slices])
    name = f"control: {work} without a limit, judged as at {CONTROL}"
    bench.add("torch", name, f"occupied {got.occupied[0]:.1f}", f"> {CONTROL + MOST_POINTS:.0f}", got.ok is False)


def power_limited(bench: Bench, program: Live) -> None:
    """Large products: the more the card rests the faster they are, so it is the time they take that is judged."""
    had = {limit: program.told("steady", "matmul", STEADY_S, limit) for limit in (0, *LIMITS)}
    solo, launch_s = had[0]
    for limit in LIMITS:
        rate, took_s = had[limit]
        used = rate * took_s * 100
        measured, target, ok = f"{used:.1f} of the time", f"{limit} +- 1 of the time", abs(used - limit) <= 1
        if limit == LIMITS[0]:
            target, ok = ">= 96 % of solo", rate >= 0.96 * solo
        name = f"matmul at {limit} (alone {solo * launch_s * 100:.0f} % busy)"
        bench.add("torch", name, f"{measured} ({rate / solo * 100:.1f} of speed)", target, ok, had=had)
