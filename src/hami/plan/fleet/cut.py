"""The columns of all rows, or of some: what the scans of one pod look at together."""

from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from hami.plan.fleet.columns import Columns, Ints, Longs


class Cut:
    """A view of all rows in use, or copies of those that were picked. Positions count within it."""

    def __init__(self, columns: Columns, rows: Longs | None = None) -> None:
        self.columns = columns
        self._rows = rows

    @cached_property
    def free_slots(self) -> Ints:
        return self.of(self.columns.free_slots)

    @cached_property
    def free_mem(self) -> Ints:
        return self.of(self.columns.free_mem)

    @cached_property
    def free_core(self) -> Ints:
        return self.of(self.columns.free_core)

    @cached_property
    def core(self) -> Ints:
        return self.of(self.columns.core)

    @cached_property
    def numa(self) -> Ints:
        return self.of(self.columns.numa)

    def of(self, cells: NDArray[Any]) -> NDArray[Any]:
        """This cut of a column or of a `[card][node]` block."""
        if self._rows is None:
            return cells[..., : self.columns.rows]
        return cells.take(self._rows, axis=-1)

    def at(self, cells: NDArray[Any], at: Longs) -> NDArray[Any]:
        """Some positions of this cut of a block, copied."""
        return cells.take(self.rows(at), axis=-1)

    def rows(self, at: Longs) -> Longs:
        """The rows at these positions."""
        return at if self._rows is None else self._rows.take(at)
