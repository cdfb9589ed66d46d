"""What is left on every card for asks that differ in memory alone, kept from one decision to the next.

Of all that is asked memory differs most, and the rest hardly: a cluster sees hundreds of sizes, and a dozen of
everything else together. So the rest is looked at once, then only on nodes that have changed, and a decision
compares one number a card. The rules are those of `exact.rules`, in their order.
"""

import numpy as np

from hami.model.ask import CardAsk
from hami.model.refusal import Reason
from hami.plan.exact.rules import WHOLE
from hami.plan.fleet.columns import (
    ABSENT,
    CORDONED,
    NO_SLOT,
    NO_UNITS,
    SICK,
    TOP,
    USED,
    USED_ALL,
    WRONG_ID,
    WRONG_TYPE,
    Bytes,
    Columns,
    Ints,
    Longs,
)
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.need import Need, Needs
from hami.plan.fleet.tally import AFTER_MEMORY, FIRST, LEFT

NEVER = np.iinfo(np.int32).min
"""Below every cell (`TOP`) and every ask."""
_NEVER = np.int32(NEVER)

_NO_CORE, _NO_CORE_PLACE = 128, np.uint8(7)
"""Beside what columns say of what a card is and of what is left on it, in one byte."""
_STANDING = {
    SICK: Reason.NOT_HEALTHY,
    CORDONED: Reason.CORDONED,
    WRONG_TYPE: Reason.TYPE_MISMATCH,
    WRONG_ID: Reason.UUID_MISMATCH,
}
_ROOM = (
    (NO_SLOT, FIRST[Reason.SLOTS_EXHAUSTED]),
    (USED, FIRST[Reason.EXCLUSIVE_CONFLICT]),  # asked before memory by who wants idle cards only
    (_NO_CORE, AFTER_MEMORY[Reason.INSUFFICIENT_CORE]),
    (USED_ALL, AFTER_MEMORY[Reason.EXCLUSIVE_CONFLICT]),
    (NO_UNITS, AFTER_MEMORY[Reason.CORES_EXHAUSTED]),
)


def _first() -> bytes:
    """For each such byte, the number of what refuses first (`fleet.tally`)."""
    table = bytearray(256)
    for found in range(256):
        standing = found & 7
        if standing in _STANDING:
            table[found] = FIRST[_STANDING[standing]]
        elif standing != ABSENT:
            table[found] = next((number for bit, number in _ROOM if found & bit), LEFT)
    return bytes(table)


_FIRST = _first()


class Sieve:
    """One family, one set of rules, one share of cores. Follows the columns when it is told to."""

    def __init__(self, columns: Columns, need: Need, core_percent: int, idle_only: bool) -> None:
        self.need = need
        self._core = min(core_percent, TOP + 1)
        self._minds = np.uint8(
            NO_SLOT
            | USED * idle_only
            | USED_ALL * (core_percent == WHOLE and not idle_only)
            | NO_UNITS * (core_percent == 0)
        )
        """What of `Columns.room` matters to these asks."""
        self._seen = -1
        self.first: Bytes = np.zeros(columns.standing.shape, np.uint8)
        """[card][row]: what refuses first (`fleet.tally`)."""
        self.free: Ints = np.full(columns.standing.shape, NEVER, np.int32)
        """[card][row]: MiB free where nothing but memory can refuse. Where a share of each card's memory is asked: 0
        where the card accepts. `NEVER` elsewhere."""

    def follow(self, columns: Columns) -> None:
        """Look at the rows that have changed."""
        if columns.changes == self._seen:
            return
        stale = np.flatnonzero(columns.version[: columns.rows] > self._seen)
        everything = len(stale) * 3 >= columns.rows  # then a look at all is cheaper than picking some
        self._look(Cut(columns, None if everything else stale), slice(columns.rows) if everything else stale)
        self._seen = columns.changes

    def _look(self, cut: Cut, rows: slice | Longs) -> None:
        found: Bytes = cut.of(cut.columns.room) & self._minds
        found |= cut.of(self.need.standing)
        free = cut.of(cut.columns.free_mem)
        found |= (cut.of(cut.columns.free_core) < self._core).view(np.uint8) << _NO_CORE_PLACE  # also of 0 asked
        first = np.frombuffer(found.tobytes().translate(_FIRST), np.uint8).reshape(found.shape)
        left = first == LEFT
        if self.need.mem is not None:
            left &= free >= cut.of(self.need.mem)
            free = np.zeros_like(free)
        self.first[:, rows] = first
        self.free[:, rows] = np.where(left, free, _NEVER)


class Sieves:
    """Those of recent asks, the latest used last."""

    SIZE = 32
    """Five bytes a card each."""

    def __init__(self) -> None:
        self._needs = Needs()
        self._inventory = -1
        self._kept: dict[object, Sieve] = {}

    def of(self, columns: Columns, ask: CardAsk, idle_only: bool) -> Sieve:
        """What is left now for asks like this one, whatever memory it asks."""
        if columns.inventory != self._inventory:
            self._inventory = columns.inventory
            self._kept.clear()
        need = self._needs.of(columns, ask)
        key = (id(need), ask.core_percent, idle_only)
        sieve = self._kept.pop(key, None)
        if sieve is None:  # it keeps its need, so nobody else has that one's id
            if len(self._kept) >= self.SIZE:
                self._kept.pop(next(iter(self._kept)))
            sieve = Sieve(columns, need, ask.core_percent, idle_only)
        self._kept[key] = sieve
        sieve.follow(columns)
        return sieve
