"""``hami.io/vgpu-mig-allocations``: which MIG instance each of a pod's slices is, as HAMi v2.10 writes it.

The scheduler writes profile and placement; the agent adds what the driver made
of them. Nothing allocates MIG instances yet: this is the format only.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from hami.model.errors import Malformed
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
