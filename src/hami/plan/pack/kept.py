"""What was found for asks of one shape, row by row, until a row changes. Where rows are many, some wait their turn."""

import numpy as np

from hami.plan.fleet.columns import Bools, Columns, Longs
from hami.plan.pack.aside import IN_NEED

NO_ROOM = -1e18
"""Worse than any node with room; still a number, since the exact look has the last word."""
UNWEIGHED = -1e15
"""Of a node whose turn has not come: worse than any that was weighed, better than none."""
PATIENCE = 64
"""Decisions on asks of one shape after which more of the rows that wait are weighed."""


class Kept:
    """What was found for asks of one shape."""

    def __init__(self, rows: int) -> None:
        self.gain = np.full(rows, NO_ROOM)
        self.seen = np.zeros(rows, np.int64)
        self.wait = 0
        """Decisions until rows that are `UNWEIGHED` have their turn; 0 where none is."""
        self.blank = True
        """Whether nothing is known of any row."""

    def forget(self) -> None:
        """Know nothing of any row."""
        self.gain.fill(NO_ROOM)
        self.seen.fill(0)
        self.wait = 0
        self.blank = True

    def stale(self, rows: Longs, columns: Columns) -> Longs:
        """Those of `rows` to weigh now: those that have changed, and those whose turn it is."""
        if self.blank:
            self.blank = False
            return rows
        changed = columns.changed(self.seen, rows)
        if self.wait:
            self.wait -= 1
            gains = self.gain.take(rows)
            if self.wait == 0 or gains.max(initial=NO_ROOM) <= IN_NEED:
                changed |= gains == UNWEIGHED
                waits = (self.gain == UNWEIGHED) & (self.seen == columns.version)
                waits[rows] = False
                self.wait = PATIENCE if waits.any() else 0  # for those that nobody asked about this time
        return rows.take(np.flatnonzero(changed))

    def put_off(self, rows: Longs, able: Bools) -> None:
        """Leave `rows` for later, those that are `able` to serve the shape."""
        self.gain[rows] = np.where(able, UNWEIGHED, NO_ROOM)
        self.wait = PATIENCE
