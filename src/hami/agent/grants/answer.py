"""A grant as kubelet is told it, and back."""

from google.protobuf.message import DecodeError

from hami.agent.grant import ALLOCATION
from hami.model.grant import DeviceNode, Grant, Mount
from hami.wire.proto import deviceplugin_pb2 as messages


def response(grant: Grant) -> messages.ContainerAllocateResponse:
    """The answer to one container's Allocate."""
    return messages.ContainerAllocateResponse(
        envs=grant.env,
        mounts=[
            messages.Mount(container_path=one.container_path, host_path=one.host_path, read_only=one.read_only)
            for one in grant.mounts
        ],
        devices=[
            messages.DeviceSpec(container_path=one.container_path, host_path=one.host_path, permissions=one.permissions)
            for one in grant.devices
        ],
        annotations=grant.annotations,
        cdi_devices=[messages.CDIDevice(name=name) for name in grant.cdi],
    )


def fixed_part_of(answer: messages.ContainerAllocateResponse) -> tuple[object, ...]:
    """What `grant.fixed_part` gives for the grant that this was made of."""
    return (
        dict(answer.envs),
        tuple(Mount(one.container_path, one.host_path, one.read_only) for one in answer.mounts),
        tuple(DeviceNode(one.container_path, one.host_path, one.permissions) for one in answer.devices),
        tuple(one.name for one in answer.cdi_devices),
        dict(answer.annotations),
    )


def allocation_of(kept: bytes) -> str | None:
    """The allocation that an answer, as kubelet keeps it, is for; None for one that is not ours."""
    try:
        return messages.ContainerAllocateResponse.FromString(kept).annotations.get(ALLOCATION)
    except DecodeError:
        return None
