"""What is left on every card of some nodes while containers of one pod are put on them."""

from collections.abc import Sequence
from functools import cached_property, reduce

import numpy as np

from hami.model.ask import CardAsk
from hami.plan.exact.rules import WHOLE
from hami.plan.exact.wants import Want
from hami.plan.fleet.columns import TOP, Bools, Ints, Longs
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.scan import Scan

Pair = tuple[Want, Scan]
"""Wants that ask alike share a scan."""


class Room:
    """All cards of the nodes `at`. What is held is asked again and again, so it is kept by scan."""

    def __init__(self, cut: Cut, at: Longs, idle_only: bool) -> None:
        self._at = at
        self._idle_only = idle_only
        self._cut = cut
        self._slots: Ints = cut.at(cut.columns.free_slots, at)
        self._mem: Ints = cut.at(cut.columns.free_mem, at)
        self._free_core: Ints = cut.at(cut.columns.free_core, at)
        self._touched: Bools = np.zeros(self._mem.shape, np.bool_)
        """Cards that something was given to."""
        self._unmetered: Bools = np.zeros(self._mem.shape, np.bool_)
        """And something that asks for no cores."""
        self._accepts: dict[Scan, Bools] = {}
        self._known: dict[tuple[Scan, ...], Bools] = {}

    @cached_property
    def _core(self) -> Ints:
        return self._cut.at(self._cut.columns.core, self._at)

    def holds(self, pairs: Sequence[Pair]) -> Bools:
        """Cards that hold all of `pairs`, put on them in this order."""
        scans = tuple([scan for _, scan in pairs])
        found = self._known.get(scans)
        if found is None:
            found = self._known[scans] = self._hold([want.ask for want, _ in pairs], scans)
        return found

    def take(self, ask: CardAsk, scan: Scan) -> Bools:
        """Give `ask` the fullest card that takes it on each node; where there is none nothing is given, and it says so.
        What is left is less from then on."""
        able = self._accepting(scan) & (self._slots > 0)
        able &= self._mem >= scan.mem
        able &= self._free_core >= ask.core_percent
        if ask.core_percent == 0:
            able &= (self._free_core > 0) | (self._core == 0)
        if ask.core_percent == WHOLE:
            able &= (self._core != WHOLE) | ~self._touched
        found: Bools = np.logical_or.reduce(able, axis=0)
        nodes = np.flatnonzero(found)
        at = np.where(able, self._mem, TOP + 1).argmin(axis=0).take(nodes), nodes
        self._slots[at] -= 1
        self._free_core[at] -= ask.core_percent
        self._mem[at] -= scan.mem
        self._touched[at] = True
        self._unmetered[at] |= ask.core_percent == 0
        return found

    def timely(self) -> Bools:
        """Nodes on which whoever asks for no cores finds some left, in whichever order all come."""
        late = self._unmetered & (self._free_core <= 0) & (self._core != 0)
        found: Bools = ~np.logical_or.reduce(late, axis=0)
        return found

    def _hold(self, asks: Sequence[CardAsk], scans: Sequence[Scan]) -> Bools:
        good = everywhere([self._accepting(scan) for scan in dict.fromkeys(scans)])
        if len(asks) == 1:
            return good
        if self._idle_only:
            return np.zeros_like(good)
        good = good & (self._slots >= len(asks))
        good &= self._mem >= _sum([scan.mem_at(self._at) for scan in scans])
        before = 0
        for ask in asks:
            if ask.core_percent == 0:
                good &= (self._free_core > before) | (self._core == 0)
            if ask.core_percent == WHOLE:
                good &= self._core != WHOLE
            before += ask.core_percent
        good &= self._free_core >= before
        return good

    def _accepting(self, scan: Scan) -> Bools:
        found = self._accepts.get(scan)
        if found is None:
            found = self._accepts[scan] = scan.accepts.take(self._at, axis=1)
        return found


def everywhere(cells: Sequence[Bools]) -> Bools:
    """Where all are true. May be the only one itself, not to be changed."""
    return cells[0] if len(cells) == 1 else reduce(np.logical_and, cells)


def _sum(parts: Sequence[Longs | int]) -> Longs | int:
    """Of MiB, the same everywhere or card by card; no more than fits nowhere."""
    total: Longs | int = min(sum(part for part in parts if isinstance(part, int)), TOP + 1)
    for part in parts:
        if not isinstance(part, int):
            total = part + total
    return total
