"""A rack: the simulated cards of one machine, as a description in YAML names them.

Values only. `hami.sim.rackfile` writes them for the simulated NVML, `hami.sim.cards` changes them while they are used.
"""

from collections.abc import Mapping
from typing import Annotated, Literal
from uuid import UUID, uuid5

import msgspec
from msgspec import Meta, Struct

from hami.config.yamls import document
from hami.model.errors import Malformed
from hami.sim.models import MODELS

NAMESPACE = UUID("6b1f5c5e-8a43-4d0c-9a6e-0d1c7b6f2a10")

Count = Annotated[int, Meta(ge=0)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Uuid = Annotated[str, Meta(pattern=r"^GPU-[0-9A-Za-z-]{1,80}$")]
PciId = Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.0$")]
Switch = Literal["off", "on"]

RESULTS: Mapping[str, int] = {
    "success": 0,
    "uninitialized": 1,
    "invalid-argument": 2,
    "not-supported": 3,
    "no-permission": 4,
    "not-found": 6,
    "driver-not-loaded": 9,
    "timeout": 10,
    "gpu-is-lost": 15,
    "reset-required": 16,
    "in-use": 19,
    "insufficient-resources": 23,
    "unknown": 999,
}
"""Answers a fault may give, by the names of NVML's return codes."""


RECOVERIES = ("none", "reset", "reboot", "drain-p2p", "drain-reset")
"""In the order of NVML's numbers."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """An answer to give instead of the true one."""

    function: str
    """NVML's name of it, of all versions when without ``_v2``; ``*`` is every function."""
    result: Literal[
        "success", "uninitialized", "invalid-argument", "not-supported", "no-permission", "not-found",
        "driver-not-loaded", "timeout", "gpu-is-lost", "reset-required", "in-use", "insufficient-resources", "unknown",
    ] = "unknown"  # fmt: skip
    delay_ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    """How long the caller is blocked first. With ``result: success`` the card is only slow."""


class Process(Struct, frozen=True, forbid_unknown_fields=True):
    """A process that uses a card. It need not be real."""

    pid: Annotated[int, Meta(ge=1)]
    mem_mib: Count | None = 0
    """None: the driver cannot tell."""
    kind: Literal["compute", "graphics", "mps"] = "compute"
    busy_percent: Percent = 0
    gpu_instance: Count | None = None
    compute_instance: Count | None = None


class Event(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happened to a card; `sequence` orders all events of a file, and none is reused."""

    sequence: Annotated[int, Meta(ge=1)]
    value: Count
    """Of an Xid event, the Xid."""
    type: Count = 8
    """Bit of NVML's event type; 8 is an Xid."""
    gpu_instance: Count | None = None
    compute_instance: Count | None = None


class SimCard(Struct, frozen=True, forbid_unknown_fields=True):
    """One card. What is not given comes from its model, and what makes it unique from its place in the list."""

    model: str = "A100-40"
    uuid: Uuid | None = None
    name: str | None = None
    mem_mib: Count | None = None
    """Total. 0 makes a board whose driver cannot tell (GB10)."""
    used_mib: Count | None = None
    """Beside what its processes hold."""
    pci: PciId | None = None
    numa: Annotated[int, Meta(ge=-1, le=1023)] = 0
    """-1 where the platform does not say."""
    minor: Count | None = None
    busy_percent: Percent | None = None
    """The busiest process's by default."""
    temperature: Count = 34
    mig: Switch = "off"
    """Mode at the start, of a model that has MIG."""
    recovery: Literal["none", "reset", "reboot", "drain-p2p", "drain-reset"] = "none"
    """What the driver says must be done to the card."""
    remap_pending: bool = False
    """A broken memory row waits for a reset."""
    remap_failed: bool = False
    lost: bool = False
    """Fallen off the bus: it counts, and answers nothing."""
    processes: list[Process] = []
    events: list[Event] = []
    faults: list[Fault] = []


class Rack(Struct, frozen=True, forbid_unknown_fields=True):
    """The cards of one machine, in NVML's order, and how they are joined."""

    cards: list[SimCard] = []
    machine: str = ""
    """Makes the UUIDs of its cards differ from those of another machine."""
    driver: str = "580.95.05"
    cuda: Annotated[str, Meta(pattern=r"^\d+\.\d+$")] = "13.0"
    nvlinks: list[list[Count]] | None = None
    """Links between each two cards; None: all of them through NVSwitch where the model has NVLink."""
    paths: list[list[Literal[0, 10, 20, 30, 40, 50]]] | None = None
    """PCIe way between each two cards, NVML's levels (0 one board .. 50 across sockets); None: by NUMA node."""
    faults: list[Fault] = []


def parse(text: str, source: str = "cards") -> Rack:
    """A rack from YAML. Raises Malformed, naming the path and what is allowed there."""
    described = document(text, source) or {}
    try:
        rack = msgspec.convert(described, Rack)
    except msgspec.ValidationError as fault:
        reason, _, path = str(fault).partition(" - at ")
        raise Malformed(f"{source}:{path.strip('`') or '$'}", reason, "see hami.sim.cards.Rack") from None
    check(rack, source)
    return rack


def check(rack: Rack, source: str = "cards") -> None:
    """What types cannot say: models exist, matrices are square. Raises Malformed."""
    for index, card in enumerate(rack.cards):
        if card.model not in MODELS:
            raise Malformed(f"{source}:$.cards[{index}].model", card.model, f"one of {', '.join(MODELS)}")
    for name, matrix in (("nvlinks", rack.nvlinks), ("paths", rack.paths)):
        if matrix is not None and [len(row) for row in matrix] != [len(rack.cards)] * len(rack.cards):
            raise Malformed(f"{source}:$.{name}", matrix, f"{len(rack.cards)} rows of {len(rack.cards)} numbers")


def uuid_of(rack: Rack, index: int) -> str:
    """The card's UUID: its own, or one made of machine, place and model, so that it is known beforehand."""
    card = rack.cards[index]
    return card.uuid or f"GPU-{uuid5(NAMESPACE, f'{rack.machine}/{index}/{card.model}')}"
