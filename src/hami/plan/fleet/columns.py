"""Every card of every node as numbers in columns, `[card][node]`: derived, never the truth.

`write` and its kin are the only way in, called by whatever changes a `NodeState`; `fleet.scan` reads. One row belongs
to one node; card 0 of all nodes lies contiguous in memory, which is what makes a scan fast.
"""

import numpy as np
from numpy.typing import NDArray

from hami.model.card import MIG
from hami.model.ids import CardId
from hami.plan.exact import score
from hami.plan.exact.rules import WHOLE
from hami.plan.snapshot import CardState, NodeState

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

TOP = 2**31 - 2
"""Most a cell holds; no real card comes near. An ask above it is asked as TOP + 1 and fits nowhere."""

ANY_CPU = 1e9
"""Milli-CPU of a host nobody spoke of: never scarce."""

ABSENT, SICK, CORDONED, WRONG_TYPE, WRONG_ID = 1, 2, 3, 4, 5
"""What a card is, in the low three bits of a byte; 0 is a card in good order. The last two depend on who asks."""

NO_SLOT, USED, USED_ALL, NO_UNITS = 8, 16, 32, 64
"""What is left on a card, in the bits above: no slot; somebody uses it, who may ask for all of its 100 percent; no
percent of those it has."""

MAX_CARDS = 127
"""Cards of a node that a scan can count (`fleet.tally`); a node with more is looked at card by card."""

FEW_ROWS = 512
"""Up to so many are picked rather than all be looked at."""

CELLS = ("free_slots", "free_mem", "free_core", "room", "mem", "core", "numa", "kind", "standing")
"""Columns with a cell a card, `[card][node]`."""
_OF_ROWS = ("version", "registered", "mig", "usable", "cards", "host_cpu", "host_whole", "node_score")
_EMPTY = {"standing": ABSENT, "host_cpu": ANY_CPU, "host_whole": ANY_CPU}
"""What stands in new room; 0 in all other columns."""


class Columns:
    """Room for `rows` nodes of `cards` cards; both grow when more is written."""

    def __init__(self, rows: int = 64, cards: int = 8) -> None:
        self.rows = 0
        """Rows in use are below this; freed ones among them are not `registered`."""
        self.inventory = 0
        """Moves when what cards *are* changes, not with what is used on them."""
        self.version = np.zeros(rows, np.int64)
        """Of each row, moves with every change; no number comes twice."""
        self.changes = 0
        """The highest version."""
        self.registered = np.zeros(rows, np.bool_)
        self.mig = np.zeros(rows, np.bool_)
        """Rows with a card in MIG mode: instances have places, which columns do not know."""
        self.usable = np.zeros(rows, np.bool_)
        self.cards = np.zeros(rows, np.int32)
        """How many a node has, of all families."""
        self.odd: set[int] = set()
        """Rows that a scan alone cannot judge: not `usable`, `mig`, or of more than `MAX_CARDS`."""
        self.host_cpu = np.full(rows, ANY_CPU)
        """Milli-CPU free on the host; `ANY_CPU` where nobody said."""
        self.host_whole = np.full(rows, ANY_CPU)
        """Milli-CPU of the host when nothing runs there; likewise."""
        self.node_score = np.zeros(rows, np.float64)
        self.free_slots = np.zeros((cards, rows), np.int32)
        self.free_mem = np.zeros((cards, rows), np.int32)
        self.free_core = np.zeros((cards, rows), np.int32)
        self.room = np.zeros((cards, rows), np.uint8)
        """What is left of a card but for amounts: `NO_SLOT` and its like."""
        self.mem = np.zeros((cards, rows), np.int32)
        self.core = np.zeros((cards, rows), np.int32)
        self.numa = np.zeros((cards, rows), np.int32)
        self.kind = np.zeros((cards, rows), np.int32)
        self.standing = np.zeros((cards, rows), np.uint8)
        self.kinds: list[tuple[str, str, str]] = [("", "", "")]
        """Distinct (family, model, mode); number 0 is no card."""
        self._kind_numbers: dict[tuple[str, str, str], int] = {}
        self.places: dict[CardId, tuple[tuple[int, int], ...]] = {}
        """Where a card id stands; more than once only if two nodes claim it."""
        self._row_ids: list[tuple[CardId, ...]] = []

    def empty(self, rows: int) -> "Columns":
        """New columns of the same width that number kinds of cards alike."""
        other = Columns(rows, len(self.standing))
        other.kinds, other._kind_numbers = self.kinds, self._kind_numbers
        return other

    @property
    def any_mig(self) -> bool:
        """Whether a card of any node is in MIG mode."""
        return bool(self.mig.any())

    @property
    def largest(self) -> int:
        """MiB of the largest card of any node."""
        return int(self.mem[:, : self.rows].max(initial=0))

    def changed(self, seen: Longs, rows: Longs) -> Bools:
        """Which of `rows` have changed since `seen` had their versions; it has as many rows as there are."""
        found: Bools = (
            (seen != self.version).take(rows)  # thousands are not taken twice
            if len(rows) > FEW_ROWS
            else seen.take(rows) != self.version.take(rows)
        )
        return found

    def write(self, row: int, state: NodeState | None) -> None:
        """Row `row` becomes `state`; None empties it."""
        self._grow(row + 1, len(state.cards) if state else 0)
        self._touch(row)
        self.registered[row] = state is not None
        self.usable[row] = state is not None and state.problem is None
        self.mig[row] = state is not None and any(one.card.mode == MIG for one in state.cards)
        states = state.cards if state else ()
        odd = state is not None and (state.problem is not None or self.mig[row] or len(states) > MAX_CARDS)
        (self.odd.add if odd else self.odd.discard)(row)
        self.cards[row] = len(states)
        self.node_score[row] = score.node(states)
        self._write_ids(row, tuple(one.card.id for one in states))
        for place in range(len(self.standing)):
            if place < len(states):
                self._write_card(row, place, states[place])
            else:
                self.kind[place, row] = 0
                self.standing[place, row] = ABSENT
        self.inventory += 1

    def write_host(self, row: int, cpu_milli: float, whole: float | None = None) -> None:
        """The host has so much CPU left, of `whole` (None: of as much as before). No card changes, so what was found
        of them still holds."""
        self._touch(row)
        self.host_cpu[row] = cpu_milli
        if whole is not None:
            self.host_whole[row] = whole

    def write_use(self, row: int, place: int, state: CardState) -> None:
        """Only what is used on one card has changed."""
        self._touch(row)
        at = (place, row)
        self.free_slots[at] = _cell(state.free_slots)
        self.free_mem[at] = _cell(state.free_mem_mib)
        self.free_core[at] = _cell(state.free_core_percent)
        self.room[at] = _room(state)

    def write_score(self, row: int, state: NodeState) -> None:
        self.node_score[row] = score.node(state.cards)

    def _touch(self, row: int) -> None:
        self.changes += 1
        self.version[row] = self.changes

    def _write_card(self, row: int, place: int, state: CardState) -> None:
        card, at = state.card, (place, row)
        self.mem[at] = _cell(card.mem_mib)
        self.core[at] = _cell(card.core_percent)
        self.numa[at] = _cell(card.numa)
        self.kind[at] = self._kind(card.family, card.model, card.mode)
        self.standing[at] = SICK if not (card.healthy and state.sound) else CORDONED if state.cordoned else 0
        self.write_use(row, place, state)

    def _kind(self, family: str, model: str, mode: str) -> int:
        key = (family, model, mode)
        if key not in self._kind_numbers:
            self._kind_numbers[key] = len(self.kinds)
            self.kinds.append(key)
        return self._kind_numbers[key]

    def _write_ids(self, row: int, ids: tuple[CardId, ...]) -> None:
        while len(self._row_ids) <= row:
            self._row_ids.append(())
        for card in self._row_ids[row]:
            left = tuple(at for at in self.places[card] if at[1] != row)
            if left:
                self.places[card] = left
            else:
                del self.places[card]
        self._row_ids[row] = ids
        for place, card in enumerate(ids):
            self.places[card] = (*self.places.get(card, ()), (place, row))

    def _grow(self, rows: int, cards: int) -> None:
        self.rows = max(self.rows, rows)
        have_cards, have_rows = self.standing.shape
        if rows <= have_rows and cards <= have_cards:
            return
        shape = (max(cards, have_cards), have_rows if rows <= have_rows else max(rows, have_rows + have_rows // 4))
        for name in (*CELLS, *_OF_ROWS):
            old = getattr(self, name)
            new = np.full(shape[-old.ndim :], _EMPTY.get(name, 0), old.dtype)
            new[tuple(map(slice, old.shape))] = old
            setattr(self, name, new)


def _room(state: CardState) -> int:
    used, core = state.used_slots > 0, state.card.core_percent
    return (
        NO_SLOT * (state.free_slots <= 0)
        | (USED | USED_ALL * (core == WHOLE)) * used
        | NO_UNITS * (state.free_core_percent == 0 != core)
    )


def _cell(value: int) -> int:
    return max(-TOP, min(value, TOP))
