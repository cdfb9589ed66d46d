"""Section `paired` of `broker.py`: what the library costs PyTorch programs that it does not hold back."""

import math
import re
import statistics
import time
from collections.abc import Sequence

from bench import Bench
from torch_live import PAST, RESTING, Pool

BLOCKS_S = {"train": 0.015, "decode": 0.005}
"""As short as what it takes to run ahead of the card after each is little of it."""
AWAY = 1.3
"""A block that takes so many times the lower quartile of its process's had no host for a while."""
KINDS = {"no limit of time": (0, 0.3), "limit 99": (99, 1.0), "limit 99, not measured but in runs": (RESTING, None)}
"""The state, and how many percent may be lost; the last shows what of that at 99 measuring costs."""
Round = tuple[float, ...]
"""Seconds of a block past the library, and in each state of KINDS."""


def paired(pool: Pool, seconds: float) -> None:
    """Each program by itself goes past the library, and through it in each state: some ms each, in turn."""
    bench = pool.node.bench
    works = [work for work in BLOCKS_S if re.search(bench.match, work)]
    states = [PAST, *(limit for limit, _ in KINDS.values())]
    for work in works:
        rounds: list[list[Round]] = []
        for program in pool.programs:
            rate, _ = program.told("paced", work, time.monotonic(), 0.1, 0.2, 0)
            steps = max(2, round(BLOCKS_S[work] * rate))
            told = program.told("alternate", work, seconds / len(works) / len(pool.programs), steps, *states)
            rounds.append([tuple(told[at : at + len(states)]) for at in range(0, len(told), len(states))])
        judge(bench, work, rounds)


def judge(bench: Bench, work: str, rounds: Sequence[Sequence[Round]]) -> None:
    """A row holds when the whole interval is below its target, fails when the whole is above; else it says neither."""
    kept = [undisturbed(some) for some in rounds]
    everyone = [each for some in kept for each in some]
    told = {
        "rounds_ms": [[[round(took * 1e3, 4) for took in each] for each in some] for some in rounds],
        "by_process": [[lost(some, at)[0] for at in range(1, 1 + len(KINDS))] for some in kept],
    }
    for at, (kind, (_, most)) in enumerate(KINDS.items(), 1):
        percent, either_way = lost(everyone, at)
        measured = f"{percent:+.2f} % +- {either_way:.2f}"
        ok = None
        if most is not None:
            ok = True if percent + either_way <= most else False if percent - either_way > most else None
        target = "" if most is None else f"<= {most} % lost"
        bench.add("paired", f"{work}, {kind}", measured, target, ok, **(told if at == 1 else {}))
    count = sum(map(len, rounds))
    blocks = [each[0] for each in everyone]
    scatter = statistics.pstdev(blocks) / statistics.mean(blocks) * 100
    measured = f"{len(everyone)} of {count}, which scatter by {scatter:.1f} %"
    bench.add("paired", f"{work}: rounds that the host was there in", measured, "", None)


def undisturbed(rounds: Sequence[Round]) -> list[Round]:
    """No block of it was without its host: whichever it was, the round is left out."""
    usual = statistics.quantiles([took for each in rounds for took in each], n=4)[0]
    return [each for each in rounds if max(each) <= AWAY * usual]


def lost(rounds: Sequence[Round], at: int) -> tuple[float, float]:
    """How many percent longer than past the library it took in all, and half of the 95 % interval of that."""
    if len(rounds) < 2:
        return math.nan, math.nan
    past = statistics.mean(each[0] for each in rounds)
    ratio = statistics.mean(each[at] for each in rounds) / past
    scatter = statistics.stdev(each[at] - ratio * each[0] for each in rounds)
    return (ratio - 1) * 100, 1.96 * scatter / math.sqrt(len(rounds)) / past * 100
