"""``hami.io/vgpu-mig-allocations``: which MIG instance each of a pod's slices is, as HAMi v2.10 writes it.

The scheduler writes profile and placement; the agent adds what the driver made
of them.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from hami.model.card import Instance
from hami.model.errors import Malformed
from hami.model.plan import ContainerSlices, Slice
from hami.wire.faults import decoded

Index = Annotated[int, Meta(ge=0)]


class Place(Struct, frozen=True):
    """Memory slices [start, start + size) of a card."""

    start: Index = 0
    size: Index = 0


class MigAllocation(Struct, frozen=True, rename="camel"):
    """One instance, planned or made. Field order is the order on the wire."""

    container_index: Index = 0
    """Place in the record: init containers first."""
    device_index: Index = 0
    """Place among the container's devices."""
    gpu_uuid: str = field(name="gpuUUID", default="")
    profile: str = ""
    placement: Place = Place()
    mig_uuid: str | UnsetType = field(name="migUUID", default=UNSET)
    gpu_instance_id: Index | UnsetType = field(name="gpuInstanceID", default=UNSET)
    """0 is a legal id, so absent and 0 differ."""
    compute_instance_id: Index | UnsetType = field(name="computeInstanceID", default=UNSET)

    @property
    def made(self) -> bool:
        """Whether the agent has created the instance."""
        return self.mig_uuid is not UNSET


def allocations(containers: Sequence[Sequence[Slice]]) -> list[MigAllocation]:
    """An entry for each slice that is an instance; `containers` is one family's device list."""
    return [
        MigAllocation(index, place, one.card, one.instance.profile, Place(one.instance.start, one.instance.size))
        for index, container in enumerate(containers)
        for place, one in enumerate(container)
        if one.instance is not None
    ]


def placed(
    containers: Sequence[ContainerSlices], entries: Sequence[MigAllocation], path: str = "$"
) -> tuple[ContainerSlices, ...]:
    """The device list with its instances: the inverse of `allocations`. Raises `Malformed` for an entry of no slice."""
    slices = [list(container) for container in containers]
    for number, one in enumerate(entries):
        devices = slices[one.container_index] if one.container_index < len(slices) else []
        if one.device_index >= len(devices) or devices[one.device_index].card != one.gpu_uuid:
            allowed = "containerIndex, deviceIndex and gpuUUID of a device in the pod's device list"
            raise Malformed(f"{path}[{number}]", msgspec.to_builtins(one), allowed)
        instance = Instance(one.profile, one.placement.start, one.placement.size)
        devices[one.device_index] = replace(devices[one.device_index], instance=instance)
    return tuple(tuple(container) for container in slices)


_decode = msgspec.json.Decoder(list[MigAllocation]).decode


def encode(allocations: list[MigAllocation] | tuple[MigAllocation, ...]) -> str:
    return msgspec.json.encode(allocations).decode()


def decode(text: str, path: str = "$") -> tuple[MigAllocation, ...]:
    """Every entry complete, no slice twice. Raises `Malformed`."""
    listed = decoded(_decode, text, path)
    seen: set[tuple[int, int]] = set()
    for index, one in enumerate(listed):
        _check(one, f"{path}[{index}]")
        place = (one.container_index, one.device_index)
        if place in seen:
            raise Malformed(f"{path}[{index}]", place, "one entry for each device of each container")
        seen.add(place)
    return tuple(listed)


def _check(one: MigAllocation, path: str) -> None:
    if not one.gpu_uuid or not one.profile or not one.placement.size:
        raise Malformed(path, msgspec.to_builtins(one), "gpuUUID, profile and a placement with a size")
    runtime = [one.mig_uuid, one.gpu_instance_id, one.compute_instance_id]
    if len({value is UNSET for value in runtime}) > 1 or one.mig_uuid == "":
        raise Malformed(path, msgspec.to_builtins(one), "all of migUUID, gpuInstanceID, computeInstanceID, or none")
