"""The policy itself: of the nodes that can serve an ask, which loses least, and which of its cards.

Whoever decides gets one number a node, higher is better, and the cards on the one he takes. What was worked
out is kept by shape of ask until a node changes, and made anew when the demand has moved enough.
Equal nodes stay equal: nothing here hangs on who breaks the tie.
"""

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from hami.model.ask import Ask, CardAsk
from hami.model.ids import Family
from hami.plan.columns import Columns, Longs
from hami.plan.fit import Want, wants
from hami.plan.pack.demand import Demand
from hami.plan.pack.lend import Lending
from hami.plan.pack.shown import Worth, shown
from hami.plan.pack.worth import RESIDUES, Rows, Scale, Singles, worth
from hami.plan.policies import chain
from hami.plan.snapshot import NodeState

Floats = NDArray[np.float64]

NO_ROOM = -1e18
"""Worse than any node with room; still a number, since the exact look has the last word."""
UNWEIGHED = -1e15
"""Of a node whose turn has not come: worse than any that was weighed, better than none."""
NEVER_SEEN = 0


class Kept:
    """What was found for asks of one shape."""

    def __init__(self, rows: int) -> None:
        self.gain = np.full(rows, NO_ROOM)
        self.seen = np.full(rows, NEVER_SEEN, np.int64)


class Judged:
    """One family as it is judged now: its scale, and all that hangs on it."""

    def __init__(self, demand: Demand, family: Family, columns: Columns) -> None:
        self.scale = Scale(demand, family, columns)
        self.rows = Rows(self.scale, columns)
        self.size = len(columns.version)
        self.inventory = columns.inventory
        self.mix = demand.mix(family)
        self.again = 0
        self.look_later(demand)
        self._kept: dict[object, Kept] = {}
        self._lent: dict[CardAsk, Lending] = {}
        self.weigh(demand, columns)

    def weigh(self, demand: Demand, columns: Columns) -> None:
        """See what is scarce now. What was kept for shapes is worth nothing after."""
        if not demand.turnover:
            return
        if demand.turnover != self.scale.turnover:
            self.scale.turnover = demand.turnover
            self.rows.forget()
        self.rows.refresh(columns, np.arange(columns.rows))
        self.scale.weigh_scarcity(self.rows.worth[0].sum(axis=0))
        self._kept.clear()
        self._lent.clear()

    def look_later(self, demand: Demand) -> None:
        leap = LEAP if demand.turnover < LIVELY else LIVELY_LEAP
        self.again = demand.seen + min(max(demand.seen // 2, 1), leap)

    def still_holds(self, demand: Demand, columns: Columns) -> bool:
        """Whether the demand is much as it was; then only what is scarce is seen anew. If it is not time, it is."""
        if demand.seen < self.again:
            return True
        self.look_later(demand)
        mix = demand.mix(self.scale.family)
        moved = sum(abs(mix.get(shape, 0.0) - self.mix.get(shape, 0.0)) for shape in {**mix, **self.mix})
        holds = demand.seen >= ENOUGH and moved < MOVED
        if holds:
            self.weigh(demand, columns)
        return holds

    def keep(self, shape: object) -> Kept:
        """What is kept for asks of this shape."""
        kept = self._kept.pop(shape, None) or Kept(self.size)
        if len(self._kept) >= SHAPES:
            self._kept.pop(next(iter(self._kept)))
        self._kept[shape] = kept
        return kept

    def lending(self, ask: CardAsk) -> Lending:
        """Which cards an ask takes, at the prices of now."""
        lent = self._lent.pop(ask, None) or Lending(self.scale, ask)
        if len(self._lent) >= LENT:
            self._lent.pop(next(iter(self._lent)))
        self._lent[ask] = lent
        return lent


SHAPES = 256
LENT = 64
LEAP = 2048
"""Asks after which the demand is looked at again at the latest."""
ENOUGH = 2048
"""Asks from which on a mix is known well enough to be kept while it does not move."""
MOVED = 0.2
"""Sum of the differences of all shapes' parts that counts as a move. Working everything out anew makes the
next decision for every shape slow, so chance alone should not cause it."""
LIVELY, LIVELY_LEAP = 0.5, 512
"""The turnover from which on it is looked at again after so many asks."""


class Pack:
    """Of one cluster. `demand` is told of every pod; the rest follows."""

    def __init__(self) -> None:
        self.demand = Demand()
        self._families: dict[Family, Judged] = {}

    def gains(self, ask: Ask, columns: Columns, rows: Longs) -> Floats:
        """Of each row, how its worth changes with the ask placed there: below 0, the nearer the better."""
        want = leading(ask)
        own = self._family(want.ask.family, columns)
        kept = own.keep((own.scale.shares(want.ask).tobytes(), want.ask.cards, ask.cpu_milli))
        stale = rows[kept.seen.take(rows) != columns.version.take(rows)]
        if len(stale):
            stale = _ordered(stale, own.size)
            own.rows.refresh(columns, stale)
            _weigh(own, kept, want.ask, ask.cpu_milli, columns=columns, rows=stale)
        return kept.gain.take(rows)

    def host_gains(self, cpu_milli: int, columns: Columns, rows: Longs) -> Floats | None:
        """Of each row, how the worth of its cards changes when a pod without cards takes CPU there; 0 is the best.
        None as long as nobody has asked for cards."""
        family = self.demand.commonest
        if family is None:
            return None
        own = self._family(family, columns)
        kept = own.keep(cpu_milli)
        stale = rows[(rows >= 0) & (kept.seen.take(rows) != columns.version.take(rows))]
        if len(stale):
            own.rows.refresh(columns, stale)
            kept.gain[stale] = _host_gains(own, cpu_milli, columns, stale)
            kept.seen[stale] = columns.version[stale]
        return kept.gain[rows]

    def worth(self, ask: Ask, columns: Columns, row: int) -> Worth | None:
        """What was compared of one row, in parts: for people. None where it has no room."""
        want = leading(ask).ask
        own, rows = self._family(want.family, columns), np.array([row])
        own.rows.refresh(columns, rows)
        lending = own.lending(want)
        cards, able, _ = lending.cards(own.rows.place[:, rows], want.cards)
        if not able[0]:
            return None
        before = own.rows.worth[0][row], float(own.rows.worth[1][row])
        seats, residue = _after(own, lending, ask.cpu_milli, columns=columns, rows=rows, cards=cards)
        free = own.rows.place[:, row]
        taken = np.zeros_like(free)
        taken[cards[:, 0]] = lending.shares(free[cards[:, 0]])
        return shown(own.scale, before, (seats[0], float(residue[0])), free, free - taken)

    def narrowed(self, ask: Ask, columns: Columns, row: int, state: NodeState) -> NodeState | None:
        """The node with only the cards it should lend; None where that is the card policy's affair."""
        if len(wants(ask)) != 1 or not chain(ask.card_policy).plain:
            return None
        want = wants(ask)[0].ask
        own = self._family(want.family, columns)
        rows = np.array([row])
        own.rows.refresh(columns, rows)
        places, able, _ = own.lending(want).cards(own.rows.place[:, rows], want.cards)
        if not able[0]:
            return None
        return replace(state, cards=tuple(state.cards[place] for place in sorted(places[:, 0].tolist())))

    def _family(self, family: Family, columns: Columns) -> Judged:
        own = self._families.get(family)
        if (
            own is None
            or own.inventory != columns.inventory
            or own.size != len(columns.version)
            or not own.still_holds(self.demand, columns)
        ):
            own = self._families[family] = Judged(self.demand, family, columns)
        return own


def leading(ask: Ask) -> Want:
    """The want that decides where a pod with several goes: the one of most cards, then of most memory."""
    return max(wants(ask), key=lambda want: (want.ask.cards, want.ask.mem_mib or 0, want.ask.mem_percent or 0))


def _weigh(own: Judged, kept: Kept, ask: CardAsk, cpu_milli: int, *, columns: Columns, rows: Longs) -> None:
    """Note the gains of `rows`; where they are many, of those whose cards lose least, and of the others later."""
    lending = own.lending(ask)
    cards, able, loss = lending.cards(own.rows.place.take(rows, axis=1), ask.cards)
    found = np.full(len(rows), NO_ROOM)
    seen = columns.version.take(rows)
    at = np.flatnonzero(able)
    if len(at) > AT_ONCE:
        order = np.argpartition(loss.take(at), AT_ONCE)
        later = at.take(order[AT_ONCE:])
        found[later], seen[later] = UNWEIGHED, NEVER_SEEN
        at = _ordered(at.take(order[:AT_ONCE]), len(rows))
    for start in range(0, len(at), BLOCK):
        block = at[start : start + BLOCK]
        found[block] = _gains(
            own, lending, cpu_milli, columns=columns, rows=rows.take(block), cards=cards.take(block, axis=1)
        )
    kept.gain[rows] = found
    kept.seen[rows] = seen


AT_ONCE = 1536
"""Rows weighed in one decision, so that no decision waits for thousands. Which of all rows these are is decided by what
their cards lose, which is most of what is weighed."""
BLOCK = 1024
"""Rows worked out at once: what is in between then stays in a core's cache."""


def _ordered(numbers: Longs, below: int) -> Longs:
    """Different numbers, ascending: then memory is walked through, not jumped about in. Faster than sorting."""
    there = np.zeros(below, np.bool_)
    there[numbers] = True
    return np.flatnonzero(there)


def _gains(own: Judged, lending: Lending, cpu_milli: int, *, columns: Columns, rows: Longs, cards: Longs) -> Floats:
    seats, residue = _after(own, lending, cpu_milli, columns=columns, rows=rows, cards=cards)
    seats -= own.rows.worth[0].take(rows, axis=0)
    gains = seats @ own.scale.weight + RESIDUES * (residue - own.rows.worth[1].take(rows))
    return np.round(gains, 3)


def _after(
    own: Judged, lending: Lending, cpu_milli: int, *, columns: Columns, rows: Longs, cards: Longs
) -> tuple[Singles, Floats]:
    """What rows are worth with the ask on `cards`: seats by shape, and residues."""
    scale, kept = own.scale, own.rows
    seats, worthless, room = kept.seats.take(rows, axis=0), kept.residue.take(rows), kept.room.take(rows)
    for number in range(len(cards)):
        place = kept.place[cards[number], rows]
        share = lending.shares(place)
        left = place - share
        seats += scale.seats.take(left, axis=0)
        seats -= scale.seats.take(place, axis=0)
        worthless += scale.residue.take(left)
        worthless -= scale.residue.take(place)
        room -= share
    return worth(scale, seats, worthless, room, columns.host_cpu.take(rows) - cpu_milli)


def _host_gains(own: Judged, cpu_milli: int, columns: Columns, rows: Longs) -> Floats:
    scale, kept = own.scale, own.rows
    at, cpu = (kept.seats[rows], kept.residue[rows], kept.room[rows]), columns.host_cpu[rows]
    seats_after, residue_after = worth(scale, *at, cpu - cpu_milli)
    found: Floats = (seats_after - kept.worth[0][rows]) @ scale.weight + RESIDUES * (
        residue_after - kept.worth[1][rows]
    )
    return np.round(found, 3)
