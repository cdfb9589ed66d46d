"""Which cards this node offers, and as what: one look at NVML under the node's rules.

A card that cannot be read is left out with its reason and never brings the
others down. Pure but for the driver's calls and one file a card in sysfs; runs in
the driver's thread.
"""

from pathlib import Path

from msgspec import Struct

from hami.agent.cards.inventory import Found, LeftOut
from hami.agent.cards.nodeconfig import NodeRules
from hami.model.card import Card
from hami.model.errors import Unavailable
from hami.model.ids import CardId
from hami.vendors.nvidia import NVIDIA
from hami.vendors.nvidia.nvml import Device, NotSupported, Nvml

MIB = 1 << 20


class Scan(Struct, frozen=True):
    """What one look found, in the driver's order."""

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]


class Unfit(Exception):
    """A card that is not offered, with the reason. `fault` is False where the administrator wants it so."""

    def __init__(self, reason: str, fault: bool = True) -> None:
        self.fault = fault
        super().__init__(reason)


def scan(nvml: Nvml, rules: NodeRules, sysfs: Path) -> Scan:
    """All cards. Raises what `Nvml.count` raises: without it nothing is known of any card."""
    found: list[Found] = []
    left_out: list[LeftOut] = []
    for index in range(nvml.count()):
        uuid: CardId | None = None
        try:
            # By index first: a card that is filtered because it is broken must not be touched.
            refuse_filtered(index in rules.filtered.index)
            device = nvml.device(index)
            uuid = CardId(nvml.uuid(device))
            refuse_filtered(uuid in rules.filtered.uuid)
            found.append(look(nvml, device, uuid, index, rules=rules, sysfs=sysfs))
        except Unfit as unfit:
            left_out.append(LeftOut(index, str(unfit), uuid, unfit.fault))
        except Unavailable as fault:
            left_out.append(LeftOut(index, str(fault), uuid))
    return Scan(tuple(found), tuple(left_out))


def refuse_filtered(filtered: bool) -> None:
    if filtered:
        raise Unfit("left out by filterdevices", fault=False)


def look(nvml: Nvml, device: Device, uuid: CardId, index: int, *, rules: NodeRules, sysfs: Path) -> Found:
    """One card. Raises Unfit, or the driver's fault."""
    check_mode(nvml, device, rules)
    pci = nvml.pci(device)
    card = Card(
        id=uuid,
        family=NVIDIA,
        model=model_of(nvml.name(device)),
        index=index,
        slots=rules.nvidia.device_split_count,
        mem_mib=memory_of(nvml, device, rules),
        core_percent=int(rules.nvidia.device_core_scaling * 100),
        numa=numa_of(nvml, device, pci.sysfs_name, sysfs),
        mode=rules.mode,
    )
    return Found(card, minor_of(nvml, device), pci.sysfs_name)


def check_mode(nvml: Nvml, device: Device, rules: NodeRules) -> None:
    """A whole card cannot be shared while its MIG mode is on: programs see no device but its instances."""
    if rules.mode == "mig":
        raise Unfit("operating mode mig is not supported by this version; use hami-core on this node")
    try:
        on = nvml.mig_mode(device).current
    except NotSupported:
        return
    if on:
        raise Unfit(f"its MIG mode is on and the node's operating mode is {rules.mode}: nvidia-smi -mig 0 turns it off")


def model_of(name: str) -> str:
    """HAMi's type: with ``NVIDIA-`` before a name that does not begin so."""
    return name if name.startswith("NVIDIA") else f"NVIDIA-{name}"


def memory_of(nvml: Nvml, device: Device, rules: NodeRules) -> int:
    """MiB offered: whole MiB of the card, then scaled and cut, as HAMi computes it."""
    try:
        whole = nvml.memory(device).total // MIB
    except NotSupported:
        whole = rules.nvidia.pre_configured_device_memory
        if not whole:
            raise Unfit(
                "its driver cannot tell its memory: set preConfiguredDeviceMemory (MiB) in device-config.yaml, "
                "or preconfigureddevicememory for this node"
            ) from None
    return int(whole * rules.nvidia.device_memory_scaling)


def numa_of(nvml: Nvml, device: Device, sysfs_name: str, sysfs: Path) -> int:
    """The card's NUMA node: the kernel's word, else the driver's, else 0."""
    try:
        node = int((sysfs / "bus/pci/devices" / sysfs_name / "numa_node").read_text())
        if node >= 0:
            return node
    except (OSError, ValueError):
        pass  # no such file in many virtual machines
    try:
        nodes = nvml.memory_nodes(device)
    except Unavailable:
        return 0
    return min(nodes, default=0)


def minor_of(nvml: Nvml, device: Device) -> int | None:
    """N of /dev/nvidiaN. A card without one can still be handed out by the container runtime."""
    try:
        return nvml.minor(device)
    except NotSupported:
        return None
