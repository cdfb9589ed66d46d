"""Whether several containers of one pod fit beside each other, asked of all nodes at once.

Each want alone is a `Scan`. Wants of one family that run at the same time share cards, and a few
conditions settle most nodes without looking at one exactly: each is either enough for
the greedy choice of `plan.fit` to run through, or necessary. The rest is for an exact look.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from hami.model.ask import CardAsk, ContainerKind
from hami.model.ids import Family
from hami.plan.columns import Bools, Longs
from hami.plan.fit import Want
from hami.plan.rules import WHOLE
from hami.plan.scan import Cut, Scan

Pair = tuple[Want, Scan]

EXACT_WANTS = 5
"""Wants of one group up to which every way to share them out is tried; 2 ** 5 sets fit in a word."""


def coupled(wants: Iterable[Want]) -> list[list[Want]]:
    """Groups of wants that may meet on a card: same family, running at the same time."""
    families: dict[Family, list[Want]] = {}
    for want in wants:
        families.setdefault(want.ask.family, []).append(want)
    return [group for group in map(_meeting, families.values()) if len(group) > 1]


def _meeting(wants: Sequence[Want]) -> list[Want]:
    """Without the init containers that run before any sidecar: they meet nobody."""
    first = next((place for place, want in enumerate(wants) if want.kind is not ContainerKind.INIT), len(wants))
    return list(wants[first:])


def settle(cut: Cut, group: Sequence[Pair], idle_only: bool) -> tuple[Bools, Bools]:
    """Where the group surely fits, and where it may; elsewhere it does not."""
    alone: Bools = np.logical_and.reduce([scan.fits for _, scan in group])
    if any(want.ask.rules.numa_bind and want.ask.cards > 1 for want, _ in group):
        return np.zeros_like(alone), alone
    meeting = Meeting(cut, group, idle_only)
    fits = alone & (meeting.apart() | meeting.stacked())
    left = np.flatnonzero(alone & ~fits)
    left = left[meeting.possible(left)]
    may = np.zeros_like(fits)
    if len(group) <= EXACT_WANTS and all(_simple(want) for want, _ in group):
        fits[left] = meeting.shared_out(left)
    else:
        may[left] = True
    return fits, may


def _simple(want: Want) -> bool:
    return want.kind is not ContainerKind.INIT and want.ask.cards == 1


class Meeting:
    """A group's wants on every node's cards. "Greedy" is the first choice `plan.fit` makes for each."""

    def __init__(self, cut: Cut, group: Sequence[Pair], idle_only: bool) -> None:
        self._cut = cut
        self._group = group
        self._idle_only = idle_only

    def apart(self) -> Bools:
        """Enough cards accept every want: whichever greedy took before, enough untouched ones are left."""
        common: Bools = np.logical_and.reduce([scan.accepts for _, scan in self._group])
        return _at_least(common, sum(want.ask.cards for want, _ in self._group))

    def stacked(self) -> Bools:
        """Enough cards hold the sum of all: whichever greedy took before, each of these has room for the rest."""
        return _at_least(self._hold(self._group, slice(None)), max(want.ask.cards for want, _ in self._group))

    def shared_out(self, at: Longs) -> Bools:
        """For nodes `at` and wants of one card each, exactly: some way to share the wants out over the cards.

        Card by card, `reached` has bit T set where the wants of set T (a bit each) can be served by the
        cards so far; a card that holds set S turns every T without S into T + S.
        """
        sets = range(1, 1 << len(self._group))
        holds = [
            self._hold([pair for bit, pair in enumerate(self._group) if chosen >> bit & 1], at).view(np.uint8)
            for chosen in sets
        ]
        reached = np.ones(len(at), np.uint64)
        for card in range(len(self._cut.free_slots)):
            before = reached.copy()
            for chosen, held in zip(sets, holds, strict=True):
                reached |= ((before & _without(chosen, len(self._group))) << np.uint64(chosen)) * held[card]
        found: Bools = (reached >> np.uint64(sets[-1]) & np.uint64(1)).astype(np.bool_)
        return found

    def _hold(self, pairs: Sequence[Pair], at: slice | Longs) -> Bools:
        """Cards that hold all of `pairs`, put on them in this order."""
        good: Bools = np.logical_and.reduce([scan.accepts[:, at] for _, scan in pairs])
        if len(pairs) == 1:
            return good
        if self._idle_only:
            return np.zeros_like(good)
        cut = self._cut
        free_core, core = cut.free_core[:, at], cut.core[:, at]
        mem = sum((_mem(scan, at) for _, scan in pairs), np.zeros(1, np.int64))
        good &= (cut.free_slots[:, at] >= len(pairs)) & (cut.free_mem[:, at] >= mem)
        before = 0
        for want, _ in pairs:
            if want.ask.core_percent == 0:
                good &= (free_core > before) | (core == 0)
            if want.ask.core_percent == WHOLE:
                good &= core != WHOLE
            before += want.ask.core_percent
        good &= free_core >= before
        return good

    def possible(self, at: Longs) -> Bools:
        """For every want, those at least as large need as many seats of its size, a card one for each at most."""
        found = np.ones(len(at), np.bool_)
        lasting = [want for want, _ in self._group if want.kind is not ContainerKind.INIT]
        for want, scan in {want.ask: (want, scan) for want, scan in self._group}.values():
            larger = [other for other in lasting if _as_large(other.ask, want.ask)]
            if len(larger) > 1:
                seats = np.minimum(self._seats(want, scan, at), len(larger))
                found &= seats.sum(axis=0) >= sum(one.ask.cards for one in larger)
        return found

    def _seats(self, want: Want, scan: Scan, at: Longs) -> Longs:
        """How many containers of this size a card takes beside what it bears."""
        accepts = scan.accepts[:, at]
        if self._idle_only:
            return accepts.astype(np.int64)
        mem, core = _mem(scan, at), want.ask.core_percent
        slots = self._cut.free_slots[:, at].astype(np.int64)
        seats = np.where(mem > 0, np.minimum(slots, self._cut.free_mem[:, at] // np.maximum(mem, 1)), slots)
        if core:
            seats = np.minimum(seats, self._cut.free_core[:, at] // core)
        if core == WHOLE:
            seats = np.where(self._cut.core[:, at] == WHOLE, np.minimum(seats, 1), seats)
        return np.where(accepts, seats, 0)


def _at_least(cells: Bools, cards: int) -> Bools:
    """Nodes with this many true cells."""
    found: Bools = np.add.reduce(cells.view(np.uint8), axis=0, dtype=np.uint16) >= cards
    return found


@cache
def _without(chosen: int, wants: int) -> np.uint64:
    """A bit for each set of wants that has none of `chosen`."""
    return np.uint64(sum(1 << served for served in range(1 << wants) if not served & chosen))


def _as_large(one: CardAsk, other: CardAsk) -> bool:
    """Whether a card that takes `one` would take `other` in its place."""
    if one.rules != other.rules or (one.mem_mib is None) != (other.mem_mib is None):
        return False
    mem = (one.mem_mib or 0) >= (other.mem_mib or 0) and (one.mem_percent or 0) >= (other.mem_percent or 0)
    return mem and one.core_percent >= other.core_percent


def _mem(scan: Scan, at: slice | Longs) -> Longs:
    return np.asarray(scan.mem, np.int64) if isinstance(scan.mem, int) else scan.mem[:, at].astype(np.int64)
