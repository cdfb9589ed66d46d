"""Rows for nodes, and the columns that follow their states; the table that `plan.choose` reads.

The only caller is the ledger, which tells it every change in the same breath.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hami.ledger.names import Names
from hami.model.ids import NodeName
from hami.plan.fleet.columns import ANY_CPU, Columns, Longs
from hami.plan.fleet.verdicts import Recall
from hami.plan.pack import Pack
from hami.plan.snapshot import NodeState


class Index:
    """Registered nodes, one row each; a row whose node has gone is used again."""

    def __init__(self) -> None:
        self.columns = Columns()
        self.recall = Recall()
        self.pack = Pack()
        self._rows: dict[str, int] = {}
        self._states: list[NodeState | None] = []
        self._free: list[int] = []
        self._rank: Longs | None = None
        self._names: Names | None = None

    @property
    def rows(self) -> Mapping[str, int]:
        return self._rows

    def rows_of(self, names: Sequence[str]) -> Longs:
        """The row of each name, -1 for one that has none."""
        if self._names is None:
            self._names = Names(self._rows)
        return self._names.rows(names)

    @property
    def rank(self) -> Longs:
        """Place of each row in the order of node names; rows without a node have none that counts."""
        if self._rank is None:
            self._rank = np.zeros(len(self._states), np.int64)
            for place, name in enumerate(sorted(self._rows)):
                self._rank[self._rows[name]] = place
        return self._rank

    def state(self, row: int) -> NodeState:
        state = self._states[row]
        if state is None:
            raise KeyError(row)
        return state

    def find(self, name: NodeName) -> NodeState | None:
        row = self._rows.get(name)
        return None if row is None else self._states[row]

    def states(self) -> Iterable[NodeState]:
        """All registered nodes."""
        return (state for state in self._states if state is not None)

    def put(self, state: NodeState) -> None:
        """A node is new, or what its cards are has changed."""
        row = self._rows.get(state.name)
        if row is None:
            row = self._row()
            self._rows[state.name] = row
            self._rank = self._names = None
        self._states[row] = state
        self.columns.write(row, state)

    def use(self, state: NodeState) -> None:
        """What is used on a node's cards has changed, and nothing else."""
        row = self._rows[state.name]
        before = self._states[row]
        self._states[row] = state
        for place, card in enumerate(state.cards):
            if before is None or before.cards[place] is not card:
                if before is not None and before.cards[place].sound != card.sound:
                    self.columns.write(row, state)
                    return
                self.columns.write_use(row, place, card)
        self.columns.write_score(row, state)

    def host(self, name: NodeName, cpu_milli: float, whole: float | None = None) -> None:
        """The host of a registered node has so much CPU left, of `whole`; None: of as much as before."""
        self.columns.write_host(self._rows[name], cpu_milli, whole)

    def host_of(self, name: NodeName) -> float:
        """Milli-CPU left on the host of a registered node; `ANY_CPU` where nobody said."""
        return float(self.columns.host_cpu[self._rows[name]])

    def drop(self, name: NodeName) -> None:
        """A node has gone."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        self._names = None
        self._states[row] = None
        self._free.append(row)
        self.columns.write(row, None)
        self.columns.write_host(row, ANY_CPU, ANY_CPU)

    def _row(self) -> int:
        if self._free:
            return self._free.pop()
        self._states.append(None)
        return len(self._states) - 1
