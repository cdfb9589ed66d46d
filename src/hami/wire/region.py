"""HAMi-core's shared region, version 1.2: what HAMi's monitor reads of a container. Bytes are made here, never read.

Little-endian, for 16 cards and 1024 processes, 2,008,952 bytes and one that ends the file.
"""

import struct
from collections.abc import Iterable
from itertools import chain

from msgspec import Struct

MAGIC, MAJOR, MINOR = 19920718, 1, 2
CARDS, PROCESSES = 16, 1024
_HEAD = struct.Struct("<iiii Q 32x Q")
_UUID = struct.Struct("96s")
_SLOT = struct.Struct("<ii 128Q 16Q 96Q i4x Q 16x")
_TAIL = struct.Struct("<iiii q 32x")
PROCESSES_AT = _HEAD.size + CARDS * (_UUID.size + 16)
TAIL_AT = PROCESSES_AT + PROCESSES * _SLOT.size
BYTES = TAIL_AT + _TAIL.size + 1
_RUNNING = 1
_MOST = 2**63 - 1


class RegionCard(Struct, frozen=True):
    """A card of the container, and its limits. `limit_bytes` 0: none."""

    uuid: str
    limit_bytes: int
    core_percent: int


class RegionUse(Struct, frozen=True):
    """What a process holds of a card, bytes, and had of its time."""

    context: int = 0
    module: int = 0
    buffer: int = 0
    sm_percent: int = 0


class RegionProcess(Struct, frozen=True):
    """Its pids in the container and on the host, and what it uses of each card."""

    pid: int
    host_pid: int
    uses: tuple[RegionUse, ...]


class Region(Struct, frozen=True):
    """One container."""

    cards: tuple[RegionCard, ...]
    processes: tuple[RegionProcess, ...]
    priority: int
    active: bool
    """Whether it has launched anything of late."""
    last_kernel_s: int
    """Unix time."""

    def head(self) -> bytes:
        """From the start of the file to the processes."""
        cards = self.cards[:CARDS]
        uuids = b"".join(_UUID.pack(card.uuid.encode()[:95]) for card in cards)
        limits = _numbers((card.limit_bytes for card in cards), CARDS)
        cores = _numbers((card.core_percent for card in cards), CARDS)
        start = _HEAD.pack(MAGIC, MAJOR, MINOR, 0, 0, len(cards))
        return start + uuids.ljust(CARDS * _UUID.size, b"\0") + struct.pack("<32Q", *limits, *cores)

    def slots(self, most: int = PROCESSES) -> bytes:
        """The first `most` processes, in full length; where there are fewer the rest is empty."""
        packed = b"".join(_slot(process) for process in self.processes[:most])
        return packed.ljust(most * _SLOT.size, b"\0")

    def tail(self) -> bytes:
        """What follows the processes, at `TAIL_AT`. A count of 2 launches makes a container active for the monitor."""
        count = min(len(self.processes), PROCESSES)
        return _TAIL.pack(count, 1, 2 if self.active else 0, self.priority, self.last_kernel_s)


def _numbers(values: Iterable[int], length: int) -> list[int]:
    kept = [min(max(0, value), _MOST) for value in values]
    return kept + [0] * (length - len(kept))


def _slot(process: RegionProcess) -> bytes:
    """Memory: context, module, buffer, offset, total, three spare. Time: decode, encode, sm, three spare."""
    uses = process.uses[:CARDS]
    held = [(u.context, u.module, u.buffer, 0, u.context + u.module + u.buffer, 0, 0, 0) for u in uses]
    times = [(0, 0, use.sm_percent, 0, 0, 0) for use in uses]
    memory, shown, time = _numbers(chain(*held), 128), _numbers((), CARDS), _numbers(chain(*times), 96)
    return _SLOT.pack(process.pid, process.host_pid, *memory, *shown, *time, _RUNNING, 0)
