"""An ask against every row of the columns at once: what `plan.rules` answers for one card, rule for rule and in
the same order, so what a scan counts is what an exact look would count.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hami.model.ask import CardAsk
from hami.model.refusal import Reason
from hami.plan.columns import ABSENT, CORDONED, SICK, TOP, WRONG_ID, WRONG_TYPE, Bools, Bytes, Columns, Ints, Longs
from hami.plan.need import Need, Needs
from hami.plan.rules import WHOLE

# A cell's verdict is one byte: what the card is in the low three bits (`columns.ABSENT` and its like), what is left
# on it in the others.
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

_KNOWN = {SICK: 0, CORDONED: 1, WRONG_TYPE: 2, WRONG_ID: 3}
_ROOM = ((_NO_SLOT, 4), (_NO_MEM, 6), (_NO_CORE, 7), (_TAKEN, 5), (_NO_UNITS, 8))
_ROOM_IDLE_ONLY = ((_NO_SLOT, 4), (_TAKEN, 5), (_NO_MEM, 6), (_NO_CORE, 7), (_NO_UNITS, 8))


def _first(room: Sequence[tuple[int, int]]) -> bytes:
    """For each verdict byte, the place of the reason that comes first, counted from 1; 0 where there is none."""
    table = bytearray(256)
    for verdict in range(1, 256):
        standing = verdict & 7
        if standing == ABSENT:
            continue
        place = _KNOWN.get(standing)
        if place is None:
            place = next((number for bit, number in room if verdict & bit), None)
        table[verdict] = 0 if place is None else place + 1
    return bytes(table)


_FIRST = _first(_ROOM)
_FIRST_IDLE_ONLY = _first(_ROOM_IDLE_ONLY)
_LACKS_MEMORY = REASONS.index(Reason.INSUFFICIENT_MEMORY) + 1


class Cut:
    """The columns of all rows, or of some: what several scans for one pod share."""

    def __init__(self, columns: Columns, rows: Longs | None = None) -> None:
        self.columns = columns
        self._rows = rows
        self.free_slots: Ints = self.of(columns.free_slots)
        self.free_mem: Ints = self.of(columns.free_mem)
        self.free_core: Ints = self.of(columns.free_core)

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
        for number in _numbers(numa):
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


def _numbers(numa: Ints) -> Sequence[int]:
    """All NUMA nodes there are, and some that are not; they are numbered from 0, as a rule."""
    low, high = int(numa.min(initial=0)), int(numa.max(initial=0))
    return range(low, high + 1) if high - low < 2 * USUAL_NUMAS else np.unique(numa).tolist()


USUAL_NUMAS = 8
"""Of one host. Looking for numbers that are not there is cheaper than sorting those that are."""


def _mark(verdict: Bytes, failed: Bools, bit: int) -> None:
    """Set `bit` where `failed`."""
    np.bitwise_or(verdict, np.multiply(failed.view(np.uint8), np.uint8(bit)), out=verdict)


def counts(tally: int) -> Mapping[Reason, int]:
    """A tally spelled out."""
    return {
        reason: count for place, reason in enumerate(REASONS) if (count := tally >> (TALLY_BITS * place) & MAX_CARDS)
    }
