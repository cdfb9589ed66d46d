"""What everything is worth under a demand, in tables: made when the demand moves, or what cards are.

*Seats* of a card by shape: how many more of it the card could take, and how much each weighs: how often it is asked
and how much it takes. *Residues*: what is free on a card, at the prices of `prices`. All numbers are in thousandths of
a card.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hami.model.ask import CardAsk
from hami.model.ids import Family
from hami.plan.exact.rules import kind_accepted
from hami.plan.fleet.columns import Bools, Columns, Longs
from hami.plan.pack.demand import Demand, Shape, Weighed
from hami.plan.pack.prices import FULL, pricing
from hami.plan.steps import Steps

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
Kinds = NDArray[np.int32]

RESIDUES = 6.0
"""How much residues weigh against seats. Chosen on lists made for it, not on those that judge."""
SEVERAL = 3.0
"""A seat for several cards weighs this much more: it is found on few nodes."""
SCARCE = 33.0
"""How many times as much it weighs at least where pods leave again: room for one card comes back with each, a seat
for several only when as many cards of one node happen to be free at once."""
ENOUGH_ROOM = 0.02
"""Of all cards of the family: a shape that can use as much finds its place."""
SCARCEST = 100.0
"""How many times as much a seat weighs at most, since it is scarce."""
PLENTY = 1e9
MOST_SHARES = 4096
"""Asks of which it is remembered what they take, half a KB each: prices may hold for as long as the process runs."""
LEVELS = FULL + 1
"""Free thousandths of a card that are told apart: a place in the tables is its kind times this, plus those."""


class Scale:
    """Everything that depends on the demand and on what cards are, not on what is used: made when either moves."""

    def __init__(self, demand: Demand, family: Family, columns: Columns, residue: Sequence[Floats]) -> None:
        """`residue` has the worth of what is free of a card, by kind and room, a card being 1000."""
        self.family = family
        self.turnover = demand.turnover
        # those of one card come first: their seats add up card by card, those of several are counted in sets of cards
        shapes = demand.frequent(family) or [_whole(family)]
        self.shapes = [one.shape for one in shapes]
        self._asks = [one.shape.ask for one in shapes]
        self.single = sum(ask.cards == 1 for ask in self._asks)
        self.sets: Singles = np.array([ask.cards for ask in self._asks[self.single :]], np.float32)
        kinds = capacities(columns, len(residue))
        self.kinds = kinds
        """Memory and cores of a card of each kind; for one that came later `known` says which of them it is like."""
        self.ours: Bools = np.array([kind[0] == family for kind in columns.kinds[: len(kinds)]])
        """Kinds of the family."""
        self.place: Longs = np.arange(len(kinds) * LEVELS)
        self.room: Longs = self.place % LEVELS
        self._shares: dict[CardAsk, Longs] = {}
        self._known: Kinds = np.arange(len(kinds), dtype=np.int32)
        """By kind of card, the kind in the tables: itself, or for one that came later, the one most like it."""
        self.seats = self._seats(columns, kinds)
        """[kind and room][shape]: seats of a card, or whether it can be one of several."""
        self.residues = list(residue)
        self.residue: Floats = np.concatenate(residue)
        """[kind and room]: what the room is worth, a card being 1000."""
        self._own: Longs = np.array(
            [number for number, kind in enumerate(kinds) if self.ours[number] and kind[0]], np.int64
        )
        self.size: Singles = np.array([ask.cards * self.part(ask) for ask in self._asks], np.float32)
        weight = np.array([one.weight for one in shapes], np.float32) * self.size
        self.share: Singles = weight / max(float(weight.sum()), 1e-9)
        self._often: Singles = weight * np.where(np.arange(len(shapes)) < self.single, 1, SEVERAL).astype(np.float32)
        self.weight: Singles = self._often
        cpu = np.array([one.shape.cpu_milli for one in shapes], np.float64)
        self._per_cpu: Singles = np.array([1 / np.maximum(cpu, 1), np.where(cpu > 0, 0, PLENTY)], np.float32)
        """Seats that a milli-CPU is enough for, by shape, and those that need none."""
        self._hunger, self._fed = self._feeding(cpu)
        """CPU by free thousandth of a card, ascending, and the part of the room that so much serves."""
        self.of_card: Floats = self._of_card()
        """[kind and room]: what a card is worth by itself; it decides between the cards of a node."""

    def able(self, cpu: Floats) -> Singles:
        """[row][shape]: seats that so much CPU is enough for."""
        given = np.ones((len(cpu), 2), np.float32)
        np.maximum(cpu, 0, out=given[:, 0], casting="same_kind")
        return given @ self._per_cpu

    def served(self, room: Floats, cpu: Floats) -> Floats:
        """The part of free thousandths that so much CPU serves: of each shape's part of them what it is enough for."""
        found: Floats = np.interp(np.maximum(cpu, 0) / np.maximum(room, 1), self._hunger, self._fed)
        return found

    def _feeding(self, cpu: Floats) -> tuple[Floats, Floats]:
        size, share = self.size.astype(np.float64), self.share.astype(np.float64)
        hungry = (cpu > 0) & (size > 0)
        need = cpu[hungry] / size[hungry]
        knees = np.sort(np.append(need, 0))
        knees = knees[np.append(True, knees[1:] != knees[:-1])]  # `np.unique`, whose first call takes 10 ms
        fed = np.minimum(knees[:, None] / need, 1) @ share[hungry] + share[~hungry].sum()
        return knees, fed

    def weigh_scarcity(self, seats: Singles, cards: int) -> None:
        """Where pods leave, a seat weighs the more the fewer there are (`seats`, in all), once its shape could use less
        than `ENOUGH_ROOM` of the family's `cards`. So nobody waits long for the one kind of room that was thought to be
        worth little."""
        usable = (seats + 1) * self.size
        scarce = np.clip(ENOUGH_ROOM * FULL * cards / np.maximum(usable, 1), 1, SCARCEST)
        scarce[self.single :] = np.maximum(scarce[self.single :], SCARCE)
        self.weight = (self._often * (1 + self.turnover * (scarce - 1))).astype(np.float32)
        self.of_card = self._of_card()

    def _of_card(self) -> Floats:
        # In doubles: in singles, rooms that lose the same would differ, and the fuller card not be taken first.
        seats = self.seats[:, : self.single].astype(np.float64)
        found: Floats = RESIDUES * self.residue + seats @ self.weight[: self.single].astype(np.float64)
        return found

    def shares(self, ask: CardAsk) -> Longs:
        """Thousandths that the ask takes, by kind of card; above 1000 where such a card is too small."""
        found = self._shares.get(ask)
        if found is None:
            if len(self._shares) >= MOST_SHARES:
                self._shares.clear()
            found = self._shares[ask] = np.array([share_of(ask, *kind) for kind in self.kinds], np.int64)
        return found

    def part(self, ask: CardAsk) -> float:
        """Thousandths of a card that the ask takes, on average over the kinds of cards of the family."""
        found = np.minimum(self.shares(ask)[self._own], FULL)
        return float(found.mean()) if len(found) else 0.0

    def known(self, columns: Columns, kind: Kinds) -> Kinds:
        """Kinds of cards as the tables have them. One that came later counts, until everything is made anew, as the one
        of the family whose memory is nearest: too much or too little for a moment, but not for nothing."""
        if len(columns.kinds) == len(self.kinds):
            return kind
        if len(columns.kinds) > len(self._known):
            sizes = capacities(columns, len(columns.kinds))[len(self._known) :]
            families = (own[0] for own in columns.kinds[len(self._known) :])
            later = [
                self._nearest(mem) if own == self.family else 0 for own, (mem, _) in zip(families, sizes, strict=True)
            ]
            self._known = np.append(self._known, np.array(later, np.int32))
        return self._known.take(kind)

    def _nearest(self, mem_mib: int) -> int:
        """The kind of the family whose memory is nearest; 0 where none is known."""
        own: list[int] = self._own.tolist()
        return min(own, key=lambda number: (abs(self.kinds[number][0] - mem_mib), number), default=0)

    def _seats(self, columns: Columns, kinds: Sequence[tuple[int, int]]) -> Singles:
        table = np.zeros((len(kinds), LEVELS, len(self._asks)), np.float32)
        levels = np.arange(LEVELS)
        for number, (family, model, mode) in enumerate(columns.kinds[: len(kinds)]):
            if family != self.family:
                continue
            for place, ask in enumerate(self._asks):
                if kind_accepted(ask.rules, model, mode):
                    seats = levels // max(share_of(ask, *kinds[number]), 1)
                    table[number, :, place] = seats if place < self.single else seats > 0
        found: Singles = table.reshape(-1, len(self._asks))
        return found


def share_of(ask: CardAsk, mem_mib: int, core_percent: int) -> int:
    """Thousandths of such a card that the ask takes, rounded up: the larger of memory and cores."""
    if not mem_mib:
        return 0
    mem = -(-ask.mem_on(mem_mib) * FULL // mem_mib)
    return max(mem, -(-ask.core_percent * FULL // core_percent) if core_percent else 0)


def _whole(family: Family) -> Weighed:
    """The guess where nobody has asked yet: whole cards."""
    return Weighed(Shape(CardAsk(family, 1, 0, mem_percent=100)), 1.0)


def capacities(columns: Columns, kinds: int) -> list[tuple[int, int]]:
    """Memory and cores of a card of each kind: of the largest, where a kind has several."""
    found = [(0, 0)]  # no card
    for number in range(1, kinds):
        here = columns.kind == number
        found.append((int(columns.mem[here].max(initial=0)), int(columns.core[here].max(initial=0))))
    return found


def residue_of(asks: Sequence[tuple[CardAsk, float]], mem_mib: int, core_percent: int) -> Steps[Floats]:
    """What is free of such a card is worth by these asks and their counts, by room."""
    if not mem_mib:
        return np.zeros(LEVELS)
    counts: dict[int, float] = {}
    for number, (ask, count) in enumerate(asks):
        if number % A_STEP == 0:
            yield
        if ask.cards == 1:
            share = share_of(ask, mem_mib, core_percent)
            counts[share] = counts.get(share, 0.0) + count
    return FULL * (yield from pricing(counts))


A_STEP = 256
"""Shapes or rows looked at in one step."""
