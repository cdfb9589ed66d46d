"""What nodes are worth as they are, and with an ask placed: for many rows at once, from the columns.

A node's worth is the sum of two things. *Seats*: for each frequent shape, how many more of it the node could take
(its cards' room, its models, its CPU). *Residues*: what is free on each card, less where the CPU left would not
serve that much. `scale` says what each is worth.
"""

import numpy as np

from hami.plan.fleet.columns import FEW_ROWS, Columns, Longs
from hami.plan.pack.prices import FULL
from hami.plan.pack.scale import LEVELS, Floats, Scale, Singles

FEW_CHANGED = 64
"""Up to so many rows are looked at again though nobody asked about some of them."""


class Rows:
    """What each row offers, kept until it changes."""

    def __init__(self, scale: Scale, columns: Columns) -> None:
        rows, width = len(columns.version), len(columns.standing)
        self._scale = scale
        self._seen = np.zeros(rows, np.int64)
        self.place = np.zeros((width, rows), np.int64)
        """[card][row]: where the card stands in the scale's tables; 0 is a card that takes nothing."""
        self.scratch = np.zeros_like(self.place)
        """For who works something out for every card: as much memory anew costs more than the work."""
        self.seats = np.zeros((rows, len(scale.weight)), np.float32)
        self.residue = np.zeros(rows)
        self.room = np.zeros(rows)
        self.worth: tuple[Singles, Floats] = (np.zeros_like(self.seats), np.zeros(rows))
        """Of each row as it is."""

    def grow(self, columns: Columns) -> None:
        """Make room for as many rows and cards as there are now."""
        width, rows = len(columns.standing) - len(self.place), len(columns.version) - len(self._seen)
        self.place = np.pad(self.place, ((0, width), (0, rows)))
        self.scratch = np.zeros_like(self.place)
        self.seats = np.pad(self.seats, ((0, rows), (0, 0)))
        self._seen = np.pad(self._seen, (0, rows))
        self.residue, self.room = np.pad(self.residue, (0, rows)), np.pad(self.room, (0, rows))
        self.worth = np.pad(self.worth[0], ((0, rows), (0, 0))), np.pad(self.worth[1], (0, rows))

    def refresh(self, columns: Columns, rows: Longs) -> None:
        """Look again at those of `rows` that have changed."""
        self._look(columns, self._stale(columns, rows))

    def look_ahead(self, columns: Columns) -> None:
        """Look again at a few rows that have changed, before anybody asks about them."""
        self._look(columns, np.flatnonzero(self._seen != columns.version)[:FEW_CHANGED])

    def _look(self, columns: Columns, stale: Longs) -> None:
        if not len(stale):
            return
        place = _places(columns, stale, self._scale)
        seats: Singles = self._scale.seats.take(place, axis=0).sum(axis=0)
        residue, room = self._scale.residue.take(place).sum(axis=0), (place % LEVELS).sum(axis=0)
        self.place[:, stale], self.seats[stale], self.residue[stale], self.room[stale] = place, seats, residue, room
        now = worth(self._scale, seats, residue, room, columns.host_cpu.take(stale))
        self.worth[0][stale], self.worth[1][stale] = now
        self._seen[stale] = columns.version[stale]

    def _stale(self, columns: Columns, rows: Longs) -> Longs:
        """Those of `rows` that have changed. Where many are asked and few have changed, all of these: to pick those
        that were asked takes longer."""
        if len(rows) > FEW_ROWS:
            changed = np.flatnonzero(self._seen != columns.version)
            if len(changed) <= FEW_CHANGED:
                return changed
        return rows.take(np.flatnonzero(columns.changed(self._seen, rows)))


def worth(scale: Scale, seats: Singles, residue: Floats, room: Floats, cpu: Floats) -> tuple[Singles, Floats]:
    """Of rows: seats by shape as far as the CPU goes, and the worth of residues as far as it does. `seats` becomes the
    first: where rows are many, every copy is felt."""
    sets = seats[:, scale.single :] / scale.sets
    whole = np.floor(sets)
    if scale.turnover:  # where pods leave, a set that is nearly complete is worth something: it is left to become one
        sets -= whole
        sets *= sets
        sets *= np.float32(scale.turnover)
        whole += sets
    seats[:, scale.single :] = whole
    np.minimum(seats, scale.able(cpu), out=seats)
    return seats, residue * scale.served(room, cpu)


def _places(columns: Columns, rows: Longs, scale: Scale) -> Longs:
    """[card][row]: kind x `LEVELS` + free thousandths; 0 for a card that takes nothing of this family."""
    kind, mem, core = (cells.take(rows, axis=1) for cells in (columns.kind, columns.mem, columns.core))
    free = columns.free_mem.take(rows, axis=1) * np.int64(FULL) // np.maximum(mem, 1)
    np.minimum(
        free, columns.free_core.take(rows, axis=1) * np.int64(FULL) // np.maximum(core, 1), out=free, where=core > 0
    )
    np.minimum(free, FULL, out=free)
    kind = scale.known(columns, kind)
    takes = scale.ours.take(kind) & (columns.standing.take(rows, axis=1) == 0) & (free > 0)
    takes &= columns.free_slots.take(rows, axis=1) > 0
    found: Longs = (kind * np.int64(LEVELS) + free) * takes
    return found
