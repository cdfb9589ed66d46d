"""Whether several containers of one pod fit beside each other, asked of all nodes at once.

Each want alone is a `Scan`. Wants of one family that run at the same time share cards, and a few
conditions settle most nodes without looking at one exactly: each is either enough for
the greedy choice of `exact.search` to run through, or necessary. The rest is for an exact look.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np

from hami.model.ask import CardAsk, ContainerKind
from hami.model.ids import Family
from hami.plan.exact.rules import WHOLE
from hami.plan.exact.sharing import MOST_WANTS, simple
from hami.plan.exact.wants import Want
from hami.plan.fleet.columns import Bools, Longs
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.room import Pair, Room, everywhere
from hami.plan.fleet.scan import Scan
from hami.plan.fleet.sharing import shared_out


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
    alone = everywhere([scan.fits for scan in dict.fromkeys(scan for _, scan in group)])
    if any(want.ask.rules.numa_bind and want.ask.cards > 1 for want, _ in group):
        return np.zeros_like(alone), alone
    meeting = Meeting(cut, group, idle_only)
    fits, may = alone & meeting.apart(), np.zeros_like(alone)
    left = np.flatnonzero(alone & ~fits)
    if len(group) <= MOST_WANTS and all(simple(want) for want, _ in group):
        fits[left] = meeting.shared_out(left)
        return fits, may
    fits[left] = meeting.stacked(left)
    left = left[~fits[left]]
    if not idle_only and all(simple(want) and want.ask.mem_mib is not None for want, _ in group):
        fits[left] = meeting.filled(left)
        left = left[~fits[left]]
    may[left] = meeting.possible(left)
    return fits, may


class Meeting:
    """A group's wants on every node's cards. "Greedy" is the first choice `exact.search` makes for each."""

    def __init__(self, cut: Cut, group: Sequence[Pair], idle_only: bool) -> None:
        self._cut = cut
        self._group = group
        self._idle_only = idle_only

    def apart(self) -> Bools:
        """Enough cards accept every want: whichever greedy took before, enough untouched ones are left."""
        common = everywhere([scan.accepts for scan in dict.fromkeys(scan for _, scan in self._group)])
        return _at_least(common, sum(want.ask.cards for want, _ in self._group))

    def stacked(self, at: Longs) -> Bools:
        """Enough cards hold the sum of all: whichever greedy took before, each of these has room for the rest."""
        held = Room(self._cut, at, self._idle_only).holds(self._group)
        return _at_least(held, max(want.ask.cards for want, _ in self._group))

    def filled(self, at: Longs) -> Bools:
        """For nodes `at` and wants of one card each that ask for MiB: all find a card if the largest takes first, and
        each the fullest card that takes it. Then `exact.search` finds them too (`Search.fill`). A pod of a dozen
        containers is settled so on nearly every node that has room for it."""
        room = Room(self._cut, at, self._idle_only)
        found = np.ones(len(at), np.bool_)
        for want, scan in sorted(self._group, key=lambda pair: -(pair[0].ask.mem_mib or 0)):
            found &= room.take(want.ask, scan)
        return found & room.timely()

    def shared_out(self, at: Longs) -> Bools:
        """For nodes `at` and wants of one card each, exactly."""
        room, wants = Room(self._cut, at, self._idle_only), len(self._group)
        sets = range(1, 1 << wants)
        holds = [room.holds([self._group[bit] for bit in range(wants) if chosen >> bit & 1]) for chosen in sets]
        return shared_out(holds, wants)

    def possible(self, at: Longs) -> Bools:
        """For every want, those at least as large need as many seats of its size, a card one for each at most."""
        found = self._enough(at)
        lasting = [want for want, _ in self._group if want.kind is not ContainerKind.INIT]
        for want, scan in {want.ask: (want, scan) for want, scan in self._group}.values():
            larger = [other for other in lasting if _as_large(other.ask, want.ask)]
            if len(larger) > 1:
                seats = np.minimum(self._seats(want, scan, at), len(larger))
                found &= seats.sum(axis=0) >= sum(one.ask.cards for one in larger)
        return found

    def _enough(self, at: Longs) -> Bools:
        """The cards that take any want have memory for all of them."""
        lasting = [(want, scan) for want, scan in self._group if want.kind is not ContainerKind.INIT]
        able = reduce(np.logical_or, [scan.accepts.take(at, axis=1) for _, scan in self._group])
        free = np.where(able, self._cut.at(self._cut.columns.free_mem, at), 0).sum(axis=0, dtype=np.int64)
        enough: Bools = free >= sum(want.ask.cards * scan.mem for want, scan in lasting if isinstance(scan.mem, int))
        return enough

    def _seats(self, want: Want, scan: Scan, at: Longs) -> Longs:
        """How many containers of this size a card takes beside what it bears."""
        accepts = scan.accepts[:, at]
        if self._idle_only:
            return accepts.astype(np.int64)
        mem, core = scan.mem_at(at), want.ask.core_percent
        slots = self._cut.free_slots[:, at].astype(np.int64)
        seats = np.where(mem > 0, np.minimum(slots, self._cut.free_mem[:, at] // np.maximum(mem, 1)), slots)
        if core:
            seats = np.minimum(seats, self._cut.free_core[:, at] // core)
        if core == WHOLE:
            seats = np.where(self._cut.core[:, at] == WHOLE, np.minimum(seats, 1), seats)
        return np.where(accepts, seats, 0)


def _at_least(cells: Bools, cards: int) -> Bools:
    """Nodes with this many true cells."""
    found: Bools = np.add.reduce(cells.view(np.uint8), axis=0, dtype=np.uint8) >= min(cards, 255)
    return found


def _as_large(one: CardAsk, other: CardAsk) -> bool:
    """Whether a card that takes `one` would take `other` in its place."""
    if one.rules != other.rules or (one.mem_mib is None) != (other.mem_mib is None):
        return False
    mem = (one.mem_mib or 0) >= (other.mem_mib or 0) and (one.mem_percent or 0) >= (other.mem_percent or 0)
    return mem and one.core_percent >= other.core_percent
