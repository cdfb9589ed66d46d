"""Section `path` of `broker.py`: what of a PyTorch step's host time is the library's, and what of that is for what.

`paired` says what a program loses; this says where. The host alone is timed, the card being kept from running what it
launches, so the card's clock and what else runs on it are not in the figures.
"""

import math
import re
import statistics
import time
from collections.abc import Sequence

from bench import Bench
from torch_live import PAST, RESTING, RICH, Pool

WORKS = ("train", "decode")
KINDS = {
    "no limit of time": (0, PAST),
    "limit 99": (99, PAST),
    "of that, measuring": (99, RESTING),
    "of that, buying": (RESTING, RICH),
    "of that, paying out of what is bought": (RICH, 0),
}
"""Under which state a step's host takes longer, and than under which."""
T_OF_TEN = 2.26
"""Student's, for an interval of 95 % of the mean of ten."""
STATES = (PAST, 0, 99, RESTING, RICH)


def path(pool: Pool, seconds: float) -> None:
    bench = pool.node.bench
    works = [work for work in WORKS if re.search(bench.match, work)]
    for work in works:
        pool.programs[0].told("paced", work, time.monotonic(), 0.1, 1.0, 99)  # so that prices are known
        told = pool.programs[0].told("hosts", work, seconds / len(works), *STATES)
        judge(bench, work, [told[at : at + len(STATES)] for at in range(0, len(told), len(STATES))])


def judge(bench: Bench, work: str, rounds: Sequence[Sequence[float]]) -> None:
    """Shown, not judged: `paired` has the targets."""
    usual = statistics.median(each[0] for each in rounds) * 1e6
    for kind, (state, than) in KINDS.items():
        more, either_way = longer(rounds, STATES.index(state), STATES.index(than))
        measured = f"{more * 1e6:+.1f} us +- {either_way * 1e6:.1f} of {usual:.0f}"
        bench.add("path", f"{work}: host time of a step, {kind}", measured, "", None, rounds=len(rounds))


def longer(rounds: Sequence[Sequence[float]], at: int, than: int) -> tuple[float, float]:
    """How much longer, in the middle of all rounds, and half of its 95 % interval, by ten parts of them."""
    more = [each[at] - each[than] for each in rounds]
    middles = [statistics.median(part) for part in (more[start::10] for start in range(10)) if part]
    if len(middles) < 2:
        return middles[0], math.nan
    return statistics.median(more), T_OF_TEN * statistics.stdev(middles) / math.sqrt(len(middles))
