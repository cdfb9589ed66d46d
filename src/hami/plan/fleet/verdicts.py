"""What was found of each node for asks of one shape, kept until the node changes.

Pods of one controller ask alike, and between two of them only the nodes change on which
something was placed or ended. So a decision looks anew at few nodes. None of it changes an answer.
"""

import numpy as np

from hami.model.ask import Ask
from hami.plan.fleet.columns import Columns, Ints, Longs
from hami.plan.fleet.refusals import FEASIBLE, NOTHING, UNKNOWN, Words
from hami.plan.fleet.sieve import Sieves


class Verdicts:
    """By row: the number of the refusal (0: feasible), the MiB missing, and the version of the row that was looked at.

    Row -1 stands for every node that is not registered.
    """

    def __init__(self, rows: int) -> None:
        self.number = np.empty(rows + 1, np.int32)
        self.missing = np.empty(rows + 1, np.int64)
        self._seen = np.empty(rows, np.int64)
        self.forget()

    def forget(self) -> None:
        """Know nothing of any row."""
        self.number[:-1], self.number[-1] = FEASIBLE, UNKNOWN
        self.missing.fill(NOTHING)
        self._seen.fill(0)
        self._fresh = True

    def stale(self, columns: Columns, rows: Longs) -> Longs:
        """Those of `rows` that have changed since they were looked at."""
        if self._fresh:
            return rows[rows >= 0]
        stale: Longs = rows.take(np.flatnonzero(columns.changed(self._seen, rows)))
        return stale[stale >= 0]

    def put(self, columns: Columns, rows: Longs | slice, number: Ints, missing: Longs) -> None:
        """What was found of `rows` as they are now."""
        self._fresh = False
        self.number[rows] = number
        self.missing[rows] = missing
        self._seen[rows] = columns.version[rows]

    def refuse(self, row: int, number: int) -> None:
        """An exact look found against a row."""
        self.number[row] = number
        self.missing[row] = NOTHING


class Recall:
    """What is worth keeping from one decision to the next: verdicts by shape, the latest used last."""

    SHAPES = 256
    """About 100 KB each with 5000 nodes."""
    WORDS = 100_000

    def __init__(self) -> None:
        self.words = Words()
        self.sieves = Sieves()
        self._verdicts: dict[object, Verdicts] = {}

    def verdicts(self, ask: Ask, columns: Columns) -> Verdicts:
        """For asks that are fitted alike, whoever asks."""
        if self.words.kept > self.WORDS:
            self.words = Words()
            self._verdicts.clear()
        shape = (*((one.kind, one.cards) for one in ask.containers), ask.card_policy, ask.weights, ask.budgets)
        found = self._verdicts.pop(shape, None)
        if found is None or len(found.number) != len(columns.version) + 1:
            found = self._blank(len(columns.version))
        self._verdicts[shape] = found
        return found

    def _blank(self, rows: int) -> Verdicts:
        """Where there are enough already, those that were not used for longest: new memory costs more."""
        if len(self._verdicts) < self.SHAPES:
            return Verdicts(rows)
        oldest = self._verdicts.pop(next(iter(self._verdicts)))
        if len(oldest.number) != rows + 1:
            return Verdicts(rows)
        oldest.forget()
        return oldest
