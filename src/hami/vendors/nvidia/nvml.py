"""NVML as the agent asks it: a narrow protocol, its values, its faults.

`driver.Driver` is the real thing on nvidia-ml-py, which also drives the simulated
library; code and tests above know only this file. All calls block, some for
seconds when a card is sick: run them in a `worker.Worker`, never in the loop.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NewType, Protocol

from msgspec import Struct

from hami.model.errors import HamiError, Retry, Unavailable

Device = NewType("Device", object)
"""A card, or a MIG device, as the library names it. Good until `close`."""
EventSet = NewType("EventSet", object)

EVENT_DOUBLE_BIT_ECC = 0x2
EVENT_XID = 0x8


class NvmlFault(Unavailable):
    """NVML's own error. `code` is its number, `function` the call that failed."""

    def __init__(self, code: int, function: str, text: str) -> None:
        self.code = code
        self.function = function
        super().__init__(f"NVML: {function}: {text} ({code})")


class NotSupported(NvmlFault):
    """This card, or this driver, does not know the question. Asking again will not help."""

    retry = Retry.NEVER


class CardLost(NvmlFault):
    """The card has fallen off the bus, or must be reset."""


class DriverMissing(HamiError):
    """No library, or no driver behind it. It may be installed while we wait."""

    retry = Retry.LATER


class DriverReplaced(HamiError):
    """The driver was upgraded under this process, whose library is the old one's: only a new process helps."""


class Timeout(Unavailable):
    """No event came within the time given."""

    retry = Retry.SOON


class Memory(Struct, frozen=True):
    """Bytes. `used` is without what the driver keeps for itself (`reserved`, 0 where it does not tell)."""

    total: int
    reserved: int
    used: int
    free: int


class Pci(Struct, frozen=True):
    domain: int
    bus: int
    device: int
    device_id: int
    """Device in the high half, vendor in the low one."""

    @property
    def sysfs_name(self) -> str:
        """As below /sys/bus/pci/devices, ``0000:07:00.0``."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.0"


class Load(Struct, frozen=True):
    """Percent of the last sample period."""

    gpu: int
    memory: int


class Process(Struct, frozen=True):
    """A process on a card; pids are the host's. Instances are None outside MIG."""

    pid: int
    mem_bytes: int | None
    graphics: bool = False
    gpu_instance: int | None = None
    compute_instance: int | None = None


class ProcessLoad(Struct, frozen=True):
    """One sample of one process; `at_us` is in microseconds of the wall clock."""

    pid: int
    at_us: int
    sm_percent: int
    mem_percent: int


class Level(IntEnum):
    """The nearest thing two cards share, seen from PCIe."""

    BOARD = 0
    SWITCH = 10
    SWITCHES = 20
    HOST_BRIDGE = 30
    NODE = 40
    SYSTEM = 50


class Peer(IntEnum):
    """What peer-to-peer access is asked about."""

    READ = 0
    WRITE = 1
    NVLINK = 2
    ATOMICS = 3


class NvLink(Struct, frozen=True):
    """One active link of a card."""

    number: int
    version: int
    to_switch: bool
    remote: Pci


class Mode(Struct, frozen=True):
    """MIG mode: now, and after the next reset."""

    current: bool
    pending: bool


class Placement(Struct, frozen=True):
    start: int
    size: int


class GpuInstanceProfile(Struct, frozen=True):
    """A size of GPU instance that the card offers. Memory in MiB, as the driver says it."""

    index: int
    id: int
    name: str
    slices: int
    instances: int
    multiprocessors: int
    mem_mib: int
    placements: tuple[Placement, ...]


class RemappedRows(Struct, frozen=True):
    """Memory rows that were replaced; `pending` and `failed` are what a healthy card has not."""

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


class Event(Struct, frozen=True):
    """Something a card reports; `value` is the Xid for an Xid. `uuid` is None if it cannot be read."""

    uuid: str | None
    kind: int
    value: int
    gpu_instance: int | None = None
    compute_instance: int | None = None


class Nvml(Protocol):
    """All methods raise `NvmlFault`; `NotSupported` is an answer to be expected of any of them."""

    def open(self) -> None:
        """Load and initialise. Raises DriverMissing, DriverReplaced."""

    def close(self) -> None:
        """Undo `open`; devices and event sets are void."""

    # the machine
    def driver_version(self) -> str: ...
    def nvml_version(self) -> str: ...
    def cuda_version(self) -> tuple[int, int]: ...
    def count(self) -> int: ...
    def device(self, index: int) -> Device: ...
    def device_by_uuid(self, uuid: str) -> Device: ...

    # who and where a card is
    def uuid(self, device: Device) -> str: ...
    def name(self, device: Device) -> str: ...
    def minor(self, device: Device) -> int: ...
    def pci(self, device: Device) -> Pci: ...
    def capability(self, device: Device) -> tuple[int, int]: ...
    def memory_nodes(self, device: Device) -> frozenset[int]:
        """Host NUMA nodes whose memory is nearest."""

    # how it does
    def memory(self, device: Device) -> Memory: ...
    def load(self, device: Device) -> Load: ...
    def temperature(self, device: Device) -> int: ...
    def power_mw(self, device: Device) -> int: ...
    def processes(self, device: Device) -> tuple[Process, ...]: ...
    def process_loads(self, device: Device, since_us: int) -> tuple[ProcessLoad, ...]:
        """Samples newer than `since_us`; empty when nothing ran."""

    def recovery_action(self, device: Device) -> int:
        """What the driver wants done to the card, 0 for nothing. NotSupported by older drivers."""

    def remapped_rows(self, device: Device) -> RemappedRows: ...

    # how cards are joined
    def nvlinks(self, device: Device) -> tuple[NvLink, ...]: ...
    def level(self, one: Device, other: Device) -> Level: ...
    def peer_access(self, one: Device, other: Device, what: Peer) -> bool: ...

    # MIG; creating instances is the MIG issue's
    def mig_mode(self, device: Device) -> Mode: ...
    def gpu_instance_profiles(self, device: Device) -> tuple[GpuInstanceProfile, ...]: ...

    # events
    def supported_events(self, device: Device) -> int: ...
    def event_set(self, devices: Sequence[tuple[Device, int]]) -> EventSet:
        """A set that gets the events of each device's mask, from now on."""

    def wait(self, events: EventSet, timeout_ms: int) -> Event:
        """The next event. Raises Timeout."""

    def free(self, events: EventSet) -> None: ...
