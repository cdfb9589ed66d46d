"""Every card of every node as numbers in columns, `[card][node]`: derived, never the truth.

`write` is the only way in, called by whatever changes a `NodeState`. A `Scan` answers for
all nodes at once what `plan.rules` answers for one card, rule for rule and in the same
order, so what it counts is what an exact look would count. One row belongs to one
node; card 0 of all nodes lies contiguous in memory, which is what makes a scan fast.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hami.model.ask import CardAsk, CardRules
from hami.model.card import MIG
from hami.model.ids import CardId, Family
from hami.model.refusal import Reason
from hami.plan import score
from hami.plan.rules import WHOLE, kind_accepted
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

# A cell's verdict is one byte: what the card is in the low three bits, what is left in the others.
_ABSENT, _SICK, _CORDONED, _WRONG_TYPE, _WRONG_ID = 1, 2, 3, 4, 5
_NO_SLOT, _NO_MEM, _NO_CORE, _TAKEN, _NO_UNITS = 8, 16, 32, 64, 128

REASONS = (
    Reason.NOT_HEALTHY,
    Reason.CORDONED,
    Reason.TYPE_MISMATCH,
    Reason.UUID_MISMATCH,
    Reason.SLOTS_EXHAUSTED,
    Reason.EXCLUSIVE_CONFLICT,
    Reason.INSUFFICIENT_MEMORY,
    Reason.INSUFFICIENT_CORE,
    Reason.CORES_EXHAUSTED,
)
"""Reasons a scan counts; a tally holds `TALLY_BITS` bits for each, in this order."""
TALLY_BITS = 7
MAX_CARDS = 2**TALLY_BITS - 1
"""Cards of a node that a tally can count."""

_KNOWN = {_SICK: 0, _CORDONED: 1, _WRONG_TYPE: 2, _WRONG_ID: 3}
_ROOM = ((_NO_SLOT, 4), (_NO_MEM, 6), (_NO_CORE, 7), (_TAKEN, 5), (_NO_UNITS, 8))
_ROOM_IDLE_ONLY = ((_NO_SLOT, 4), (_TAKEN, 5), (_NO_MEM, 6), (_NO_CORE, 7), (_NO_UNITS, 8))


def _first(room: Sequence[tuple[int, int]]) -> bytes:
    """For each verdict byte, the place of the reason that comes first, counted from 1; 0 where there is none."""
    table = bytearray(256)
    for verdict in range(1, 256):
        standing = verdict & 7
        if standing == _ABSENT:
            continue
        place = _KNOWN.get(standing)
        if place is None:
            place = next((number for bit, number in room if verdict & bit), None)
        table[verdict] = 0 if place is None else place + 1
    return bytes(table)


_FIRST = _first(_ROOM)
_FIRST_IDLE_ONLY = _first(_ROOM_IDLE_ONLY)
_LACKS_MEMORY = REASONS.index(Reason.INSUFFICIENT_MEMORY) + 1


class Columns:
    """Room for `rows` nodes of `cards` cards; both grow when more is written."""

    def __init__(self, rows: int = 64, cards: int = 8) -> None:
        self.rows = 0
        """Rows in use are below this; freed ones among them are not `registered`."""
        self.inventory = 0
        """Moves when what cards *are* changes, not with what is used on them."""
        self.version = np.zeros(rows, np.int64)
        """Of each row, moves with every change; no number comes twice."""
        self._changes = 0
        self.registered = np.zeros(rows, np.bool_)
        self.mig = np.zeros(rows, np.bool_)
        """Rows with a card in MIG mode: instances have places, which columns do not know."""
        self.usable = np.zeros(rows, np.bool_)
        self.host_cpu = np.full(rows, ANY_CPU)
        """Milli-CPU free on the host; `ANY_CPU` where nobody said."""
        self.node_score = np.zeros(rows, np.float64)
        self.free_slots = np.zeros((cards, rows), np.int32)
        self.free_mem = np.zeros((cards, rows), np.int32)
        self.free_core = np.zeros((cards, rows), np.int32)
        self.used_slots = np.zeros((cards, rows), np.int32)
        self.mem = np.zeros((cards, rows), np.int32)
        self.core = np.zeros((cards, rows), np.int32)
        self.numa = np.zeros((cards, rows), np.int32)
        self.kind = np.zeros((cards, rows), np.int32)
        self.standing = np.zeros((cards, rows), np.uint8)
        self.kinds: list[tuple[str, str, str]] = [("", "", "")]
        """Distinct (family, model, mode); number 0 is no card."""
        self._kind_numbers: dict[tuple[str, str, str], int] = {("", "", ""): 0}
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

    def write(self, row: int, state: NodeState | None) -> None:
        """Row `row` becomes `state`; None empties it."""
        self._grow(row + 1, len(state.cards) if state else 0)
        self._touch(row)
        self.registered[row] = state is not None
        self.usable[row] = state is not None and state.problem is None
        self.mig[row] = state is not None and any(one.card.mode == MIG for one in state.cards)
        states = state.cards if state else ()
        self.node_score[row] = score.node(states)
        self._write_ids(row, tuple(one.card.id for one in states))
        for place in range(len(self.standing)):
            if place < len(states):
                self._write_card(row, place, states[place])
            else:
                self.kind[place, row] = 0
                self.standing[place, row] = _ABSENT
        self.inventory += 1

    def write_host(self, row: int, cpu_milli: float) -> None:
        """The host has so much CPU left. No card changes, so what was found of them still holds."""
        self._touch(row)
        self.host_cpu[row] = cpu_milli

    def write_use(self, row: int, place: int, state: CardState) -> None:
        """Only what is used on one card has changed."""
        self._touch(row)
        at = (place, row)
        self.free_slots[at] = _cell(state.free_slots)
        self.free_mem[at] = _cell(state.free_mem_mib)
        self.free_core[at] = _cell(state.free_core_percent)
        self.used_slots[at] = _cell(state.used_slots)

    def write_score(self, row: int, state: NodeState) -> None:
        self.node_score[row] = score.node(state.cards)

    def _touch(self, row: int) -> None:
        self._changes += 1
        self.version[row] = self._changes

    def _write_card(self, row: int, place: int, state: CardState) -> None:
        card, at = state.card, (place, row)
        self.mem[at] = _cell(card.mem_mib)
        self.core[at] = _cell(card.core_percent)
        self.numa[at] = _cell(card.numa)
        self.kind[at] = self._kind(card.family, card.model, card.mode)
        self.standing[at] = _SICK if not (card.healthy and state.sound) else _CORDONED if state.cordoned else 0
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
        shape = (max(cards, have_cards), max(rows, have_rows if rows <= have_rows else 2 * have_rows))
        for name in ("free_slots", "free_mem", "free_core", "used_slots", "mem", "core", "numa", "kind", "standing"):
            old = getattr(self, name)
            new = np.full(shape, _ABSENT if name == "standing" else 0, old.dtype)
            new[:have_cards, :have_rows] = old
            setattr(self, name, new)
        self.version = np.concatenate([self.version, np.zeros(shape[1] - have_rows, np.int64)])
        self.registered = np.concatenate([self.registered, np.zeros(shape[1] - have_rows, np.bool_)])
        self.mig = np.concatenate([self.mig, np.zeros(shape[1] - have_rows, np.bool_)])
        self.host_cpu = np.concatenate([self.host_cpu, np.full(shape[1] - have_rows, ANY_CPU)])
        self.usable = np.concatenate([self.usable, np.zeros(shape[1] - have_rows, np.bool_)])
        self.node_score = np.concatenate([self.node_score, np.zeros(shape[1] - have_rows)])


def _cell(value: int) -> int:
    return max(-TOP, min(value, TOP))


class Need:
    """One family's ask over all rows: what depends only on the inventory, kept until that changes."""

    def __init__(self, columns: Columns, family: Family, rules: CardRules, mem_percent: int | None) -> None:
        fate = np.array([self._fate(rules, family, kind) for kind in columns.kinds], np.uint8)
        standing = columns.standing.copy()
        by_kind = fate[columns.kind]
        np.copyto(standing, by_kind, where=(standing == 0) | (by_kind == _ABSENT))
        self.total = np.count_nonzero(standing != _ABSENT, axis=0).astype(np.int32)
        """Cards of the family on each node."""
        if rules.use_ids or rules.nouse_ids:
            self._rule_ids(columns, rules, standing)
        self.standing = standing
        self.mem: Ints | None = None
        """MiB the ask takes on each card; None where it is the same on all."""
        if mem_percent is not None:
            self.mem = (columns.mem.astype(np.int64) * mem_percent // 100).astype(np.int32)

    @staticmethod
    def _fate(rules: CardRules, family: Family, kind: tuple[str, str, str]) -> int:
        own, model, mode = kind
        if own != family:
            return _ABSENT
        return 0 if kind_accepted(rules, model, mode) else _WRONG_TYPE

    @staticmethod
    def _rule_ids(columns: Columns, rules: CardRules, standing: Bytes) -> None:
        wrong = np.full(standing.shape, bool(rules.use_ids))
        for card in rules.use_ids:
            for at in columns.places.get(CardId(card), ()):
                wrong[at] = False
        for card in rules.nouse_ids:
            for at in columns.places.get(CardId(card), ()):
                wrong[at] = True
        standing[wrong & (standing == 0)] = _WRONG_ID


class Needs:
    """The `Need`s of recent asks. A cluster sees few distinct rules, and inventories rarely change."""

    SIZE = 64

    def __init__(self) -> None:
        self._inventory = -1
        self._kept: dict[tuple[Family, CardRules, int | None], Need] = {}

    def of(self, columns: Columns, ask: CardAsk) -> Need:
        if columns.inventory != self._inventory:
            self._inventory = columns.inventory
            self._kept.clear()
        key = (ask.family, ask.rules, ask.mem_percent if ask.mem_mib is None else None)
        need = self._kept.get(key)
        if need is None:
            if len(self._kept) >= self.SIZE:
                self._kept.pop(next(iter(self._kept)))
            need = self._kept[key] = Need(columns, *key)
        return need


class Cut:
    """The columns of all rows, or of some: what several scans for one pod share."""

    def __init__(self, columns: Columns, rows: Longs | None = None) -> None:
        self.columns = columns
        self._rows = rows
        self.free_slots: Ints = self.of(columns.free_slots)
        self.free_mem: Ints = self.of(columns.free_mem)
        self.free_core: Ints = self.of(columns.free_core)

    def __len__(self) -> int:
        return self.columns.rows if self._rows is None else len(self._rows)

    @cached_property
    def used_slots(self) -> Ints:
        return self.of(self.columns.used_slots)

    @cached_property
    def core(self) -> Ints:
        return self.of(self.columns.core)

    @cached_property
    def numa(self) -> Ints:
        return self.of(self.columns.numa)

    def of(self, cells: NDArray[Any]) -> NDArray[Any]:
        """This cut of a column or of a `[card][node]` block. A view, or a copy where rows were picked."""
        if self._rows is None:
            return cells[..., : self.columns.rows]
        return cells.take(self._rows, axis=-1)


class Scan:
    """One container's ask of one family against every row of a cut."""

    def __init__(self, cut: Cut, needs: Needs, ask: CardAsk, idle_only: bool) -> None:
        need = needs.of(cut.columns, ask)
        self._cut = cut
        self._idle_only = idle_only
        self.total: Ints = cut.of(need.total)
        self.mem: Ints | int = min(ask.mem_mib or 0, TOP + 1) if need.mem is None else cut.of(need.mem)
        """MiB the ask takes, the same everywhere or card by card."""
        self.verdict = self._judge(need, ask)
        self.accepts: Bools = self.verdict == 0
        self.accepted: Bytes = np.add.reduce(self.accepts.view(np.uint8), axis=0, dtype=np.uint8)
        self.together: Bytes = self._together() if ask.rules.numa_bind else self.accepted
        self.fits: Bools = self.together >= min(ask.cards, 255)

    def _judge(self, need: Need, ask: CardAsk) -> Bytes:
        """A byte a card: 0 accepts, else the rules it fails."""
        cut = self._cut
        verdict: Bytes = cut.of(need.standing).copy()
        core = min(ask.core_percent, TOP + 1)
        _mark(verdict, cut.free_slots <= 0, _NO_SLOT)
        _mark(verdict, cut.free_mem < self.mem, _NO_MEM)
        _mark(verdict, cut.free_core < core, _NO_CORE)
        if self._idle_only:
            _mark(verdict, cut.used_slots > 0, _TAKEN)
        elif core == WHOLE:
            _mark(verdict, (cut.used_slots > 0) & (cut.core == WHOLE), _TAKEN)
        if core == 0:
            _mark(verdict, (cut.free_core == 0) & (cut.core != 0), _NO_UNITS)
        return verdict

    def _together(self) -> Bytes:
        """The most accepting cards on one NUMA node."""
        numa = self._cut.numa
        most = np.zeros(self.accepted.shape, np.uint8)
        for number in np.unique(numa[self.accepts]):
            group = np.add.reduce((self.accepts & (numa == number)).view(np.uint8), axis=0, dtype=np.uint8)
            np.maximum(most, group, out=most)
        return most

    def tallies(self, at: Longs) -> tuple[Longs, Longs]:
        """For rows `at` of this scan: the tally of reasons, and the MiB the best card lacks (-1: no card lacks any)."""
        verdict = self.verdict.take(at, axis=1)
        said = verdict.tobytes().translate(_FIRST_IDLE_ONLY if self._idle_only else _FIRST)
        first = np.frombuffer(said, np.uint8).reshape(verdict.shape)
        tally = np.zeros(len(at), np.int64)
        for place in range(len(REASONS)):
            if said.find(place + 1) >= 0:  # a scan meets two or three of the nine
                cards = np.add.reduce((first == place + 1).view(np.uint8), axis=0, dtype=np.uint8)
                tally |= cards.astype(np.int64) << (TALLY_BITS * place)
        return tally, self._least(first == _LACKS_MEMORY, at)

    def _least(self, lacks: Bools, at: Longs) -> Longs:
        """MiB missing on the best of the cards that lack memory, -1 on nodes where none does."""
        free = self._cut.free_mem.take(at, axis=1)
        if isinstance(self.mem, int):
            best = np.where(lacks, free, np.int32(_NEVER)).max(axis=0).astype(np.int64)
            return np.where(best == _NEVER, -1, self.mem - best)
        missing = self.mem.take(at, axis=1).astype(np.int64) - free
        missing[~lacks] = np.iinfo(np.int64).max
        return np.where(lacks.any(axis=0), missing.min(axis=0), -1)


_NEVER = np.iinfo(np.int32).min
"""Below every cell (`TOP`)."""


def _mark(verdict: Bytes, failed: Bools, bit: int) -> None:
    """Set `bit` where `failed`."""
    np.bitwise_or(verdict, np.multiply(failed.view(np.uint8), np.uint8(bit)), out=verdict)


def counts(tally: int) -> Mapping[Reason, int]:
    """A tally spelled out."""
    return {
        reason: count for place, reason in enumerate(REASONS) if (count := tally >> (TALLY_BITS * place) & MAX_CARDS)
    }
