"""Whether several containers of one pod fit beside each other, asked of all nodes at once.

Each want alone is a `Scan`. Wants of one family that run at the same time share cards, and a few
conditions settle most nodes without looking at one exactly: each is either enough for
the greedy choice of `exact.fit` to run through, or necessary. The rest is for an exact look.
"""

from collections.abc import Iterable, Sequence
from functools import cache, cached_property, reduce
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hami.model.ask import CardAsk, ContainerKind
from hami.model.ids import Family
from hami.plan.exact.rules import WHOLE
from hami.plan.exact.wants import Want
from hami.plan.fleet.columns import TOP, Bools, Bytes, Ints, Longs
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.scan import Scan

Pair = tuple[Want, Scan]

EXACT_WANTS = 5
"""Wants of one group up to which every way to share them out is tried; 2 ** 5 sets fit in a word."""
TABLED_WANTS = 3
"""Up to which a table says what two cards serve together: 64 KB for three."""

Words = NDArray[np.uint64]


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
    alone = _all([scan.fits for scan in {id(scan): scan for _, scan in group}.values()])
    if any(want.ask.rules.numa_bind and want.ask.cards > 1 for want, _ in group):
        return np.zeros_like(alone), alone
    meeting = Meeting(cut, group, idle_only)
    fits, may = alone & meeting.apart(), np.zeros_like(alone)
    left = np.flatnonzero(alone & ~fits)
    if len(group) <= EXACT_WANTS and all(_simple(want) for want, _ in group):
        fits[left] = meeting.shared_out(left)
        return fits, may
    fits[left] = meeting.stacked(left)
    left = left[~fits[left]]
    if not idle_only and all(_simple(want) and want.ask.mem_mib is not None for want, _ in group):
        fits[left] = meeting.filled(left)
        left = left[~fits[left]]
    may[left] = meeting.possible(left)
    return fits, may


def _simple(want: Want) -> bool:
    return want.kind is not ContainerKind.INIT and want.ask.cards == 1


class Meeting:
    """A group's wants on every node's cards. "Greedy" is the first choice `exact.fit` makes for each."""

    def __init__(self, cut: Cut, group: Sequence[Pair], idle_only: bool) -> None:
        self._cut = cut
        self._group = group
        self._idle_only = idle_only

    def apart(self) -> Bools:
        """Enough cards accept every want: whichever greedy took before, enough untouched ones are left."""
        accepts = {id(scan): scan.accepts for _, scan in self._group}  # wants that ask alike share a scan
        common = _all(list(accepts.values()))
        return _at_least(common, sum(want.ask.cards for want, _ in self._group))

    def stacked(self, at: Longs) -> Bools:
        """Enough cards hold the sum of all: whichever greedy took before, each of these has room for the rest."""
        held = Room(self._cut, at, self._idle_only).holds(self._group)
        return _at_least(held, max(want.ask.cards for want, _ in self._group))

    def filled(self, at: Longs) -> Bools:
        """For nodes `at` and wants of one card each that ask for MiB: all find a card if the largest takes first, and
        each the fullest card that takes it. Then `exact.fit` finds them too (`Search.fill`). A pod of a dozen
        containers is settled so on nearly every node that has room for it."""
        room = Room(self._cut, at, self._idle_only)
        found = np.ones(len(at), np.bool_)
        for want, scan in sorted(self._group, key=lambda pair: -(pair[0].ask.mem_mib or 0)):
            found &= room.take(want.ask, scan)
        return found & room.timely()

    def shared_out(self, at: Longs) -> Bools:
        """For nodes `at` and wants of one card each, exactly: some way to share the wants out over the cards.

        Card by card, `reached` has bit T set where the wants of set T (a bit each) can be served by the
        cards so far; a card that holds set S turns every T without S into T + S.
        """
        room, wants = Room(self._cut, at, self._idle_only), len(self._group)
        sets = range(1, 1 << wants)
        holds = [room.holds([self._group[bit] for bit in range(wants) if chosen >> bit & 1]) for chosen in sets]
        reached = _reached_by_table(holds, wants) if wants <= TABLED_WANTS else _reached(holds, wants)
        found: Bools = (reached >> reached.dtype.type(sets[-1]) & reached.dtype.type(1)).astype(np.bool_)
        return found

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
        mem, core = _mem(scan, at), want.ask.core_percent
        slots = self._cut.free_slots[:, at].astype(np.int64)
        seats = np.where(mem > 0, np.minimum(slots, self._cut.free_mem[:, at] // np.maximum(mem, 1)), slots)
        if core:
            seats = np.minimum(seats, self._cut.free_core[:, at] // core)
        if core == WHOLE:
            seats = np.where(self._cut.core[:, at] == WHOLE, np.minimum(seats, 1), seats)
        return np.where(accepts, seats, 0)


class Room:
    """What is left on every card of some nodes."""

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
        self._accepts: dict[int, Bools] = {}
        self._known: dict[tuple[int, ...], Bools] = {}
        """By the scans of what is held: wants that ask alike share one."""

    @cached_property
    def _core(self) -> Ints:
        return self._cut.at(self._cut.columns.core, self._at)

    def holds(self, pairs: Sequence[Pair]) -> Bools:
        """Cards that hold all of `pairs`, put on them in this order."""
        alike = tuple([id(scan) for _, scan in pairs])
        found = self._known.get(alike)
        if found is None:
            found = self._known[alike] = self._hold([want.ask for want, _ in pairs], [scan for _, scan in pairs])
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
        good = _all([self._accepting(scan) for scan in {id(scan): scan for scan in scans}.values()])
        if len(asks) == 1:
            return good
        if self._idle_only:
            return np.zeros_like(good)
        good = good & (self._slots >= len(asks))
        good &= self._mem >= _sum([_mem(scan, self._at) for scan in scans])
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
        found = self._accepts.get(id(scan))
        if found is None:
            found = self._accepts[id(scan)] = scan.accepts.take(self._at, axis=1)
        return found


def _all(cells: Sequence[Bools]) -> Bools:
    """Where all are true. May be the only one itself, not to be changed."""
    return cells[0] if len(cells) == 1 else reduce(np.logical_and, cells)


def _at_least(cells: Bools, cards: int) -> Bools:
    """Nodes with this many true cells."""
    found: Bools = np.add.reduce(cells.view(np.uint8), axis=0, dtype=np.uint8) >= min(cards, 255)
    return found


def _reached(holds: Sequence[Bools], wants: int) -> Words:
    """Of each node, the sets of wants that all of its cards can serve; the empty one too."""
    reached = np.ones(holds[0].shape[1], np.uint64)
    for card in range(len(holds[0])):
        before = reached.copy()
        for chosen, held in enumerate(holds, 1):
            without = before & np.uint64(_without(chosen, wants))
            reached |= (without << np.uint64(chosen)) * held[card].view(np.uint8)
    return reached


def _reached_by_table(holds: Sequence[Bools], wants: int) -> Bytes:
    """The same for few wants: what two halves of the cards can serve together is looked up."""
    held = np.zeros(holds[0].shape, np.uint8)
    for place, one in enumerate(holds):
        held |= one.view(np.uint8) << np.uint8(place)
    reached = _alone(wants).take(held)
    both = _both(wants)
    while len(reached) > 1:
        half = len(reached) // 2
        pairs = reached[:half].astype(np.uint16) << np.uint16(8)
        pairs |= reached[half : 2 * half]
        reached = np.concatenate((both.take(pairs), reached[2 * half :]))
    found: Bytes = reached[0]
    return found


@cache
def _alone(wants: int) -> Bytes:
    """For each choice of sets that a card holds (a bit a set), the sets it can serve; the empty one too."""
    return np.array([held << 1 | 1 for held in range(1 << (1 << wants) - 1)], np.uint8)


@cache
def _both(wants: int) -> Bytes:
    """For two states, a byte each, the state of both: every set of the one with every set of the other that it shares
    no want with."""
    states = np.arange(1 << (1 << wants))
    one, two = states[:, None], states[None, :]
    table = np.zeros((len(states), 256), np.uint8)
    for first, second in product(range(1 << wants), repeat=2):
        if not first & second:
            table[:, : len(states)] |= ((one >> first & two >> second & 1) << (first | second)).astype(np.uint8)
    return table.ravel()


@cache
def _without(chosen: int, wants: int) -> int:
    """A bit for each set of wants that has none of `chosen`."""
    return sum(1 << served for served in range(1 << wants) if not served & chosen)


def _as_large(one: CardAsk, other: CardAsk) -> bool:
    """Whether a card that takes `one` would take `other` in its place."""
    if one.rules != other.rules or (one.mem_mib is None) != (other.mem_mib is None):
        return False
    mem = (one.mem_mib or 0) >= (other.mem_mib or 0) and (one.mem_percent or 0) >= (other.mem_percent or 0)
    return mem and one.core_percent >= other.core_percent


def _mem(scan: Scan, at: Longs) -> Longs | int:
    return scan.mem if isinstance(scan.mem, int) else scan.mem.take(at, axis=1).astype(np.int64)


def _sum(parts: Sequence[Longs | int]) -> Longs | int:
    """Of MiB, the same everywhere or card by card; no more than fits nowhere."""
    total: Longs | int = min(sum(part for part in parts if isinstance(part, int)), TOP + 1)
    for part in parts:
        if not isinstance(part, int):
            total = part + total
    return total
