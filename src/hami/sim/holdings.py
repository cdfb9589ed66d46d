"""What containers of a simulated kubelet have, and how it tells: by pod-resources, and in its checkpoint file.

As in Kubernetes 1.34. The file's checksum is 0, which nobody but kubelet looks at.
"""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from hami.wire.objects import Container, Pod
from hami.wire.proto import podresources_pb2 as resources

FILE_NAME = "kubelet_internal_checkpoint"


class Holding(Struct, frozen=True):
    """What one container has of one resource, and the answer it came with."""

    ids: frozenset[str]
    answer: bytes


Place = tuple[str, str, str]
"""Pod uid, container, resource."""

Held = Mapping[Place, Holding]


def containers(pod: Pod) -> list[tuple[Container, bool]]:
    """In kubelet's order, with whether it stands among the init containers."""
    return [
        *((one, True) for one in pod.spec.init_containers or ()),
        *((one, False) for one in pod.spec.containers),
    ]


def shown(pod: Pod, held: Held) -> resources.PodResources:
    """A pod as pod-resources lists it: init containers are not."""
    return resources.PodResources(
        name=pod.metadata.name,
        namespace=pod.metadata.namespace,
        containers=[
            resources.ContainerResources(name=container.name, devices=list(_devices(pod, container, held)))
            for container, init in containers(pod)
            if not init or container.restart_policy == "Always"
        ],
    )


def _devices(pod: Pod, container: Container, held: Held) -> Iterator[resources.ContainerDevices]:
    for (uid, name, resource), holding in held.items():
        if (uid, name) == (pod.metadata.uid, container.name):
            for one in sorted(holding.ids):  # kubelet sends an entry a device
                yield resources.ContainerDevices(resource_name=resource, device_ids=[one])


def write(folder: Path, held: Held) -> None:
    """Replace the file by one that says so."""
    entries = [
        {
            "PodUID": uid,
            "ContainerName": name,
            "ResourceName": resource,
            "DeviceIDs": {"-1": sorted(holding.ids)},
            "AllocResp": base64.b64encode(holding.answer).decode(),
        }
        for (uid, name, resource), holding in held.items()
    ]
    text = msgspec.json.encode({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {}}, "Checksum": 0})
    temporary = folder / f".{FILE_NAME}"
    temporary.write_bytes(text)
    temporary.replace(folder / FILE_NAME)


def read(folder: Path) -> dict[Place, Holding]:
    """What the file says; nothing where there is none."""
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    found = {}
    for entry in msgspec.json.decode(path.read_bytes())["Data"]["PodDeviceEntries"] or ():
        ids = frozenset(one for some in entry["DeviceIDs"].values() for one in some)
        place = (entry["PodUID"], entry["ContainerName"], entry["ResourceName"])
        found[place] = Holding(ids, base64.b64decode(entry["AllocResp"]))
    return found
