"""The policy itself: of the nodes that can serve an ask, which loses least, and which of its cards.

Whoever decides gets one number a node, higher is better, and the cards on the one he takes. What was worked
out is kept by shape of ask until a node changes, and made anew when the demand has moved enough.
Equal nodes stay equal: nothing here hangs on who breaks the tie.
"""

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from hami.model.ask import Ask, CardAsk
from hami.model.ids import Family
from hami.plan.exact.wants import Want, wants
from hami.plan.fleet.columns import Columns, Longs
from hami.plan.pack.demand import Demand
from hami.plan.pack.judged import Judged, judging
from hami.plan.pack.kept import NO_ROOM, Kept
from hami.plan.pack.lend import Lending
from hami.plan.pack.scale import RESIDUES, Scale, Singles
from hami.plan.pack.shown import Aside, Worth, shown
from hami.plan.pack.worth import worth
from hami.plan.policies import chain
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps, finish

Floats = NDArray[np.float64]


MANY_SEEN = 256
"""Asks from which on prices may wait: those of fewer are made in a moment, and each ask still tells much."""


class Pack:
    """Of one cluster. `demand` is told of every pod; the rest follows."""

    def __init__(self) -> None:
        self.demand = Demand()
        self.patient = False
        """Whether somebody takes the steps of `renew` again and again: then decisions go by what there is."""
        self._families: dict[Family, Judged] = {}
        self._due: set[Family] = set()

    def renew(self, columns: Columns) -> Steps[None]:
        """Judge anew what the demand, or new kinds of cards, have outdated, and the commonest family before it is
        asked for. Most steps are below half a millisecond, the longest a few."""
        families, first = self._families, self.demand.commonest
        outdated = {family for family, own in families.items() if own.outdated(columns)}
        missing = {first} - families.keys() if first is not None else set()
        for family in sorted(self._due | outdated | missing):
            self._due.discard(family)
            own = families.get(family)
            holds = own is not None and family not in outdated and not own.moved(self.demand)
            if not holds or self.demand.turnover:
                families[family] = yield from judging(self.demand, family, columns, own if holds else None)

    def look_ahead(self, columns: Columns) -> None:
        """Between two decisions: see what the last one changed, so that the next need not. Changes no answer."""
        for own in self._families.values():
            own.look_ahead(columns)

    def gains(self, ask: Ask, columns: Columns, rows: Longs) -> Floats:
        """Of each row, how its worth changes with the ask placed there: below 0, the nearer the better."""
        want = leading(ask, self._part(columns))
        own = self._family(want.ask.family, columns)
        kept = own.keep((own.scale.shares(want.ask).tobytes(), want.ask.cards, ask.cpu_milli))
        stale = kept.stale(rows, columns)
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
        stale = rows[(rows >= 0) & columns.changed(kept.seen, rows)]
        if len(stale):
            stale = _ordered(stale, own.size)
            own.rows.refresh(columns, stale)
            kept.gain[stale] = _host_gains(own, cpu_milli, columns, stale)
            kept.seen[stale] = columns.version.take(stale)
        return kept.gain.take(rows)

    def worth(self, ask: Ask, columns: Columns, row: int) -> Worth | None:
        """What was compared of one row, in parts: for people. None where it has no room."""
        want = leading(ask, self._part(columns)).ask
        own, rows = self._family(want.family, columns), np.array([row])
        own.rows.refresh(columns, rows)
        lending = own.lending(want)
        cards, able = lending.cards(own.rows.place[:, rows], want.cards)
        if not able[0]:
            return None
        before = own.rows.worth[0][row], float(own.rows.worth[1][row])
        seats, residue = _after(own, lending, ask.cpu_milli, columns=columns, rows=rows, cards=cards)
        free = own.rows.place[:, row]
        taken = np.zeros_like(free)
        taken[cards[:, 0]] = lending.shares(free[cards[:, 0]])
        late = own.late(want.cards, rows)
        aside = Aside(int(own.aside[row]), 0.0 if late is None else float(late[0]))
        after = seats[0], float(residue[0])
        return shown(own.scale, before, after, free=free, free_after=free - taken, aside=aside)

    def narrowed(self, ask: Ask, columns: Columns, row: int, state: NodeState) -> NodeState | None:
        """The node with only the cards it should lend; None where that is the card policy's affair."""
        if len(wants(ask)) != 1 or not chain(ask.card_policy).plain:
            return None
        want = wants(ask)[0].ask
        own = self._family(want.family, columns)
        rows = np.array([row])
        own.rows.refresh(columns, rows)
        places, able = own.lending(want).cards(own.rows.place[:, rows], want.cards)
        if not able[0]:
            return None
        return replace(state, cards=tuple(state.cards[place] for place in sorted(places[:, 0].tolist())))

    def _part(self, columns: Columns) -> Callable[[CardAsk], float]:
        """How much of a card an ask takes: of the cards of its own family, whatever unit it is in."""
        return lambda one: self._family(one.family, columns).scale.part(one)

    def _family(self, family: Family, columns: Columns) -> Judged:
        own, demand = self._families.get(family), self.demand
        if own is not None and self.patient and demand.seen >= MANY_SEEN:
            own.follow(columns)
            if own.time_to_look(demand):
                self._due.add(family)
        elif own is None or own.inventory != columns.inventory or own.size != len(columns.version):
            own = self._families[family] = finish(judging(demand, family, columns))
        elif own.time_to_look(demand):
            holds = not own.moved(demand)
            if not holds or demand.turnover:
                own = self._families[family] = finish(judging(demand, family, columns, own if holds else None))
        return own


def leading(ask: Ask, part: Callable[[CardAsk], float]) -> Want:
    """The want that decides where a pod with several goes: the one of most cards, then of the largest part of each."""
    found = wants(ask)
    return found[0] if len(found) == 1 else max(found, key=lambda want: (want.ask.cards, part(want.ask)))


def _weigh(own: Judged, kept: Kept, ask: CardAsk, cpu_milli: int, *, columns: Columns, rows: Longs) -> None:
    """Note the gains of `rows`; where they are many, of those that promise most, and of the others later."""
    lending, late = own.lending(ask), own.late(ask.cards, rows)
    kept.seen[rows] = columns.version.take(rows)
    if len(rows) > WHOLE:
        first, able = lending.promising(own.rows.place, rows, ask.cards, AT_ONCE, own.rows.scratch, late=late)
        kept.put_off(rows, able)
        first = _ordered(first, len(rows))
        rows, late = rows.take(first), None if late is None else late.take(first)
    cards, able = lending.cards(own.rows.place.take(rows, axis=1), ask.cards)
    found = np.full(len(rows), NO_ROOM)
    at = np.flatnonzero(able)
    found[at] = _gains(own, lending, cpu_milli, columns=columns, rows=rows.take(at), cards=cards.take(at, axis=1))
    if late is not None:
        found -= late
    kept.gain[rows] = found


WHOLE, AT_ONCE = 1280, 640
"""So many rows are weighed whole; of more, so many in one decision, so that no decision waits for thousands. Which of
all rows these are is decided by what their first card loses, most of what is weighed. The others wait until none of
these has room, or for a while."""


def _ordered(numbers: Longs, below: int) -> Longs:
    """Different numbers, ascending: then memory is walked through, not jumped about in. Faster than sorting."""
    there = np.zeros(below, np.bool_)
    there[numbers] = True
    return np.flatnonzero(there)


def _gains(own: Judged, lending: Lending, cpu_milli: int, *, columns: Columns, rows: Longs, cards: Longs) -> Floats:
    seats, residue = _after(own, lending, cpu_milli, columns=columns, rows=rows, cards=cards)
    seats -= own.rows.worth[0].take(rows, axis=0)
    gains = _weighed(seats, own.scale) + RESIDUES * (residue - own.rows.worth[1].take(rows))
    return np.round(gains, 3)


def _weighed(seats: Singles, scale: Scale) -> Floats:
    """In doubles: a sum of singles hangs on how many rows are summed at once, and then equal nodes differ."""
    found: Floats = seats.astype(np.float64) @ scale.weight.astype(np.float64)
    return found


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
    scale, kept, cpu = own.scale, own.rows, columns.host_cpu.take(rows) - cpu_milli
    seats, residue = worth(scale, kept.seats.take(rows, axis=0), kept.residue.take(rows), kept.room.take(rows), cpu)
    seats -= kept.worth[0].take(rows, axis=0)
    found: Floats = _weighed(seats, scale) + RESIDUES * (residue - kept.worth[1].take(rows))
    late = own.late(0, rows)
    return np.round(found, 3) if late is None else np.round(found, 3) - late
