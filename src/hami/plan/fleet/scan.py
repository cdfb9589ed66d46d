"""An ask against every row of the columns at once: what `exact.rules` answers for one card, rule for rule and in
the same order, so what a scan counts is what an exact look would count.
"""

from collections.abc import Sequence

import numpy as np

from hami.model.ask import CardAsk
from hami.plan.fleet.columns import TOP, Bools, Bytes, Ints, Longs
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.sieve import NEVER, Sieves
from hami.plan.fleet.tally import LACKS_MEMORY, LEFT, tallies


class Scan:
    """One container's ask of one family against every row of a cut."""

    def __init__(self, cut: Cut, sieves: Sieves, ask: CardAsk, idle_only: bool) -> None:
        self._cut = cut
        self._sieve = sieves.of(cut.columns, ask, idle_only)
        need = self._sieve.need
        self.total: Ints = cut.of(need.total)
        self.mem: Ints | int = min(ask.mem_mib or 0, TOP + 1) if need.mem is None else cut.of(need.mem)
        """MiB the ask takes, the same everywhere or card by card."""
        self.accepts: Bools = cut.of(self._sieve.free) >= (self.mem if isinstance(self.mem, int) else 0)
        self.accepted: Bytes = np.add.reduce(self.accepts.view(np.uint8), axis=0, dtype=np.uint8)
        self.together: Bytes = self._together() if ask.rules.numa_bind else self.accepted
        self.fits: Bools = self.together >= min(ask.cards, 255)

    def _together(self) -> Bytes:
        """The most accepting cards on one NUMA node."""
        numa = self._cut.numa
        most = np.zeros(self.accepted.shape, np.uint8)
        for number in _numbers(numa):
            group = np.add.reduce((self.accepts & (numa == number)).view(np.uint8), axis=0, dtype=np.uint8)
            np.maximum(most, group, out=most)
        return most

    def mem_at(self, at: Longs) -> Longs | int:
        """`mem` at positions `at`, wide enough to be added up."""
        return self.mem if isinstance(self.mem, int) else self.mem.take(at, axis=1).astype(np.int64)

    def tallies(self, at: Longs) -> tuple[Longs, Longs]:
        """For positions `at`: the tally of reasons, and the MiB the best card lacks (-1: no card lacks any)."""
        rows = self._cut.rows(at)
        first = self._sieve.first.take(rows, axis=1)
        free = self._cut.columns.free_mem.take(rows, axis=1)
        mem = self.mem if isinstance(self.mem, int) else self.mem.take(at, axis=1)
        lacks = first >= LEFT
        lacks &= free < mem
        np.copyto(first, np.uint8(LACKS_MEMORY), where=lacks)
        return tallies(first), _least(lacks, free, mem)


def _least(lacks: Bools, free: Ints, mem: Ints | int) -> Longs:
    """MiB missing on the best of the cards that lack memory, -1 on nodes where none does."""
    if isinstance(mem, int):
        best = np.where(lacks, free, np.int32(NEVER)).max(axis=0).astype(np.int64)
        return np.where(best == NEVER, -1, mem - best)
    missing = mem.astype(np.int64) - free
    missing[~lacks] = np.iinfo(np.int64).max
    return np.where(lacks.any(axis=0), missing.min(axis=0), -1)


def _numbers(numa: Ints) -> Sequence[int]:
    """All NUMA nodes there are, and some that are not; they are numbered from 0, as a rule."""
    low, high = int(numa.min(initial=0)), int(numa.max(initial=0))
    return range(low, high + 1) if high - low < 2 * USUAL_NUMAS else np.unique(numa).tolist()


USUAL_NUMAS = 8
"""Of one host. Looking for numbers that are not there is cheaper than sorting those that are."""
