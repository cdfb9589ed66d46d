"""A grant: what a container is given so that it sees its slice and nothing else."""

from msgspec import Struct

from hami.model.ask import PodRef
from hami.model.plan import ContainerSlices


class Mount(Struct, frozen=True):
    container_path: str
    host_path: str
    read_only: bool = True


class DeviceNode(Struct, frozen=True):
    container_path: str
    host_path: str
    permissions: str = "rw"


class Grant(Struct, frozen=True):
    """The answer to one `Allocate`. The same ask twice gets the same grant."""

    pod: PodRef
    container: str
    kubelet_ids: tuple[str, ...]
    """The device ids kubelet allocated, sorted: what identifies the allocation."""
    slices: ContainerSlices
    env: dict[str, str]
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    cdi: tuple[str, ...] = ()
    """Fully qualified CDI device names, ``vendor/class=name``."""
    annotations: dict[str, str] = {}
    """For the container runtime; how older runtimes are told CDI names."""
