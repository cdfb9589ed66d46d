"""A PyTorch program that stays and does as `torch_live.py` says on stdin, a line each; a line of numbers is its answer.

torch_program.py WORK,...    layer, train, decode, matmul, small (torch_work.py)

queued WORK                             seconds of one iteration's launches queued back to back
paced WORK BEGIN WARM SECONDS STATE...  slices from CLOCK_MONOTONIC BEGIN on, each for WARM under its state, then for
                                        SECONDS measured: iterations a second, and GPU time paid for one, ns, of each
held WORK WARM SECONDS STATE...         slices one after the other: iterations a second, GPU time paid for one, ns, and
                                        what the launches of one take in a queue just after it, seconds, of each
alternate WORK SECONDS STEPS STATE...   rounds for so long: under each state, in any order, one iteration and then
                                        STEPS measured ones: the seconds that these took
hosts WORK SECONDS STATE...             rounds for so long: under each state, in any order, the seconds that the host
                                        takes to launch one iteration, the card being kept from running it meanwhile
log LEVEL                               what the library says on stderr from now on
steady WORK SECONDS STATE               runs on for so long under that state, then for as long measured: iterations a
                                        second, and the seconds that a call takes on the card

A state is a limit in percent; 0: none; -1: past the library, as good as without it; -2: 99, and launches of known
prices not measured; -3: the same, and nothing has to be bought (inside.c).
"""

import ctypes
import itertools
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch_live import PAST, RESTING, RESTING_LIMIT, RICH
from torch_work import CYCLES_A_S, queued, rate_of, warmed

Go = Callable[[], object]
LOOKED_AT = (4, 2, 1)
"""Iterations that are queued at once, of which the first count that the host is ahead of the card with is taken."""


class Inside:
    """The door into the library of this process; without a library there is nothing to change."""

    def __init__(self) -> None:
        path = os.environ.get("LD_PRELOAD")
        self._library = ctypes.CDLL(path) if path else None
        if self._library is not None:
            self._library.hami_inside_paid_ns.restype = ctypes.c_int64
            self._library.hami_inside_bypass.argtypes = [ctypes.c_bool]
            self._library.hami_inside_rest.argtypes = [ctypes.c_bool]
            self._library.hami_inside_rich.argtypes = [ctypes.c_bool]

    def enter(self, state: int) -> None:
        """Nothing of this process may be launching."""
        if self._library is None:
            return
        if self._library.hami_inside_bypass(state == PAST) <= 0:
            raise RuntimeError("the library cannot be gone past")
        rests = state in (RESTING, RICH)
        self._library.hami_inside_percent(state if state > 0 else RESTING_LIMIT if rests else 100)
        self._library.hami_inside_rest(rests)
        self._library.hami_inside_rich(state == RICH)

    def log(self, level: int) -> None:
        if self._library is not None:
            self._library.hami_inside_log(level)

    def paid_ns(self) -> int:
        return int(self._library.hami_inside_paid_ns()) if self._library is not None else 0


def paced(inside: Inside, go: Go, times: Sequence[float], states: Sequence[int]) -> list[float]:
    begin, warm, seconds = times
    told = []
    rate_of(go, begin - time.monotonic())
    for index, state in enumerate(states):
        at = begin + index * (warm + seconds)
        inside.enter(state)
        rate_of(go, at + warm - time.monotonic())
        before, begun = inside.paid_ns(), time.monotonic()
        rate = rate_of(go, max(seconds / 4, at + warm + seconds - begun))
        told += [rate, (inside.paid_ns() - before) / (rate * (time.monotonic() - begun))]
    rate_of(go, warm)  # nobody is measured alone at the end
    return told


def held(inside: Inside, go: Go, warm: float, seconds: float, states: Sequence[int]) -> list[float]:
    """The card is as fast in that queue as in the slice: what its power allows changes more slowly."""
    host_s = 1.5 / rate_of(go, LOOKED_AT[0] * warm)
    told = []
    for state in states:
        inside.enter(state)
        rate_of(go, warm)
        before, begun = inside.paid_ns(), time.monotonic()
        rate = rate_of(go, seconds)
        told += [rate, (inside.paid_ns() - before) / (rate * (time.monotonic() - begun))]
        inside.enter(0)
        told.append(looked_at(go, host_s))
    return told


def looked_at(go: Go, host_s: float) -> float:
    """Not a number where its host was away."""
    try:
        return queued(go, LOOKED_AT, host_s)
    except RuntimeError:
        return math.nan


def alternate(inside: Inside, go: Go, seconds: float, steps: int, states: Sequence[int]) -> list[float]:
    told: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        took = [0.0] * len(states)
        for place in random.sample(range(len(states)), len(states)):
            inside.enter(states[place])
            go()
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for _ in range(steps):
                go()
            torch.cuda.synchronize()
            took[place] = time.perf_counter() - begun
        told += took
    return told


def hosts(inside: Inside, go: Go, seconds: float, states: Sequence[int]) -> list[float]:
    """A state lasts until the card is through, so nothing has to wait for its budget."""
    kept_s = 3.0 / rate_of(go, 0.3)
    told: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        took = [0.0] * len(states)
        for place in random.sample(range(len(states)), len(states)):
            torch.cuda.synchronize()
            inside.enter(0)
            torch.cuda._sleep(int(kept_s * CYCLES_A_S))
            inside.enter(states[place])
            begun = time.perf_counter()
            go()
            took[place] = time.perf_counter() - begun
        told += took
    return told


def steady(go: Go, seconds: float) -> list[float]:
    """A call takes what is between the ends of two where its host did not wait: then the card went on at once."""
    rate_of(go, seconds)
    marks, hosts = [torch.cuda.Event(enable_timing=True)], []
    marks[0].record()
    begun = time.monotonic()
    while (at := time.monotonic()) < begun + seconds:
        go()
        hosts.append(time.monotonic() - at)
        marks.append(torch.cuda.Event(enable_timing=True))
        marks[-1].record()
        if len(hosts) % 8 == 0:
            marks[-2].synchronize()  # not far ahead of the card, and never without anything queued
    torch.cuda.synchronize()
    rate = len(hosts) / (time.monotonic() - begun)
    prompt = 3 * statistics.quantiles(hosts, n=4)[0]
    took = [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]
    return [rate, statistics.mean(one for one, host in zip(took, hosts, strict=True) if host < prompt)]


def obey(inside: Inside, ready: dict[str, Go], words: list[str]) -> list[float]:
    told: list[float] = [0]
    match words:
        case ["queued", work]:
            told = [statistics.median(queued(ready[work]) for _ in range(5))]
        case ["paced", work, begin, warm, seconds, *states]:
            times = [float(each) for each in (begin, warm, seconds)]
            told = paced(inside, ready[work], times, [int(each) for each in states])
        case ["held", work, warm, seconds, *states]:
            told = held(inside, ready[work], float(warm), float(seconds), [int(each) for each in states])
        case ["alternate", work, seconds, steps, *states]:
            told = alternate(inside, ready[work], float(seconds), int(steps), [int(each) for each in states])
        case ["hosts", work, seconds, *states]:
            told = hosts(inside, ready[work], float(seconds), [int(each) for each in states])
        case ["steady", work, seconds, state]:
            inside.enter(int(state))
            told = steady(ready[work], float(seconds))
        case ["log", level]:
            inside.log(int(level))
        case _:
            raise ValueError(f"nothing that can be done: {words}")
    return told


def main(words: list[str]) -> int:
    print(0, flush=True)  # PyTorch is there
    inside = Inside()
    ready = {work: warmed(work, 0.7) for work in words[0].split(",")}
    print(0, flush=True)
    for line in sys.stdin:
        told = obey(inside, ready, line.split())
        inside.enter(0)
        print(*(f"{each:.7g}" for each in told), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
