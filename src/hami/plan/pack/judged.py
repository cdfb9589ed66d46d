"""One family as it is judged now: prices and tables that follow from the demand, and what was found with them.

All of it is made anew when the demand has moved. That takes hundreds of milliseconds on a large cluster, so it goes
in steps: whoever can, takes them between two decisions, and decides by the old one until the new one is there.
"""

import numpy as np

from hami.model.ask import CardAsk
from hami.model.ids import Family
from hami.plan.fleet.columns import Columns, Floats, Longs
from hami.plan.pack.aside import lateness, set_aside
from hami.plan.pack.demand import Demand
from hami.plan.pack.kept import Kept
from hami.plan.pack.lend import Lending
from hami.plan.pack.scale import A_STEP, Scale, capacities, residue_of
from hami.plan.pack.worth import Rows
from hami.plan.steps import Steps

SHAPES = 256
LENT = 128
"""Shapes and ways of taking cards that are remembered: 16 bytes a node, and 8 KB a kind of card."""
LEAP = 2048
"""Asks after which the demand is looked at again at the latest."""
ENOUGH = 2048
"""Asks from which on a mix is known well enough to be kept while it does not move."""
FEW = 1024
"""By fewer asks than these prices are never so old that twice as many alone would call for new ones."""
MOVED = 0.2
"""Sum of the differences of all shapes' parts that counts as a move. Working everything out anew makes the
next decision for every shape slow, so chance alone should not cause it."""
LIVELY, LIVELY_LEAP = 0.5, 512
"""The turnover from which on it is looked at again after so many asks."""


def judging(demand: Demand, family: Family, columns: Columns, before: "Judged | None" = None) -> Steps["Judged"]:
    """Judge a family by what is asked now; by the prices of `before` where they still hold."""
    inventory, every = columns.inventory, demand.every(family)
    residue = before.scale.residues if before is not None else []
    for kind in capacities(columns, len(columns.kinds))[len(residue) :]:
        residue.append((yield from residue_of(every, *kind)))
    yield
    scale = Scale(demand, family, columns, residue)
    yield
    own = Judged(demand, columns, scale, inventory)
    if before is not None:
        own.mix, own.priced = before.mix, before.priced
    for start in range(0, columns.rows, A_STEP):
        yield
        own.follow(columns)
        own.rows.refresh(columns, np.arange(start, min(start + A_STEP, columns.rows)))
    if own.scale.turnover:
        yield
        own.set_aside(demand, columns)
        yield
        own.see_scarcity(columns)
    return own


class Judged:
    """The scale, and all that hangs on it."""

    def __init__(self, demand: Demand, columns: Columns, scale: Scale, inventory: int) -> None:
        self.scale = scale
        self.rows = Rows(scale, columns)
        self.size = len(columns.version)
        self.inventory = inventory
        """That of the columns when it was made, or last found to make no difference."""
        self.mix = demand.mix(scale.family)
        self.priced = demand.seen
        """Asks by which the prices were made: by twice as many they are made anew, since chance in few turns them."""
        self.aside = np.zeros(self.size, np.int64)
        """By row, for asks of how many cards it is set aside; 0 for none."""
        self._widths: frozenset[int] = frozenset()
        self.look_later(demand)
        self._kept: dict[object, Kept] = {}
        self._lent: dict[bytes, Lending] = {}

    def set_aside(self, demand: Demand, columns: Columns) -> None:
        """See which nodes to leave to wide asks."""
        self.follow(columns)
        self.aside = set_aside(demand, self.scale.family, columns)
        self._widths = frozenset(self.aside.tolist()) - {0}

    def see_scarcity(self, columns: Columns) -> None:
        """Weigh seats by how many there are."""
        self.follow(columns)
        self.rows.refresh(columns, np.arange(columns.rows))
        cards = int(np.count_nonzero(self.scale.ours.take(self.scale.known(columns, columns.kind))))
        self.scale.weigh_scarcity(self.rows.worth[0].sum(axis=0), cards)

    def look_later(self, demand: Demand) -> None:
        leap = LEAP if demand.turnover < LIVELY else LIVELY_LEAP
        self.again = demand.seen + min(max(demand.seen // 2, 1), leap)

    def time_to_look(self, demand: Demand) -> bool:
        """Whether so much has been asked since that the demand may have moved, or what is scarce."""
        late = demand.seen >= self.again
        if late:
            self.look_later(demand)
        return late

    def moved(self, demand: Demand) -> bool:
        """Whether the demand is no longer much as it was, so that prices have to be made anew."""
        mix = demand.mix(self.scale.family)
        moved = sum(abs(mix.get(shape, 0.0) - self.mix.get(shape, 0.0)) for shape in {**mix, **self.mix})
        return demand.seen < ENOUGH or demand.seen >= 2 * max(self.priced, FEW) or moved >= MOVED

    def follow(self, columns: Columns) -> None:
        """Columns that have grown have rows that are not known here, or nodes of more cards than any had before."""
        if self.size != len(columns.version) or len(self.rows.place) != len(columns.standing):
            self.size = len(columns.version)
            self.rows.grow(columns)
            self.aside = np.pad(self.aside, (0, self.size - len(self.aside)))
            self._kept.clear()

    def look_ahead(self, columns: Columns) -> None:
        """Between two decisions: what the next one would begin with."""
        if self.size == len(columns.version) and len(self.rows.place) == len(columns.standing):
            self.rows.look_ahead(columns)

    def late(self, cards: int, rows: Longs) -> Floats | None:
        """What it costs an ask of so many cards that nodes are set aside for others; None where none is."""
        if not self._widths:
            return None
        return lateness(self.aside.take(rows), cards, own=cards in self._widths)

    def outdated(self, columns: Columns) -> bool:
        """Whether there are cards now that it was not made for."""
        changed = columns.inventory != self.inventory
        self.inventory = columns.inventory
        return changed and capacities(columns, len(columns.kinds)) != self.scale.kinds

    def keep(self, shape: object) -> Kept:
        """What is kept for asks of this shape."""
        kept = self._kept.pop(shape, None) or self._blank()
        self._kept[shape] = kept
        return kept

    def _blank(self) -> Kept:
        """Where there are enough already, those that were not used for longest: new memory costs more."""
        if len(self._kept) < SHAPES:
            return Kept(self.size)
        oldest = self._kept.pop(next(iter(self._kept)))
        oldest.forget()
        return oldest

    def lending(self, ask: CardAsk) -> Lending:
        """Which cards an ask takes, at the prices of now."""
        shares = self.scale.shares(ask).tobytes()
        lent = self._lent.pop(shares, None) or Lending(self.scale, ask)
        if len(self._lent) >= LENT:
            self._lent.pop(next(iter(self._lent)))
        self._lent[shares] = lent
        return lent
