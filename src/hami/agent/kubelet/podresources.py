"""What kubelet says it holds: its pods, and which of their containers have which of our device ids.

Two sources. The pod-resources API is public and is asked first; it does not list init
containers, for which kubelet's own checkpoint file is read (`KubeletFile`). Decides nothing.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
import msgspec
from msgspec import Struct

from hami.agent.kubelet import rpc
from hami.model.errors import Unavailable
from hami.wire.proto import podresources_pb2 as messages
from hami.wire.proto.services import LIST_POD_RESOURCES

log = logging.getLogger(__name__)

PodName = tuple[str, str]
"""Namespace and name: all that the pod-resources API tells of a pod."""
Holding = Mapping[PodName, Mapping[str, frozenset[str]]]
"""Device ids by pod and container name."""

RETRY_S = 0.05
"""kubelet lets 100 calls a second through, 10 at once, and refuses the rest."""
CALL_S = 5.0


class KubeletView(Struct, frozen=True):
    """kubelet's pods at one moment. A pod stands here from the moment kubelet starts to admit it."""

    held: Holding

    @property
    def pods(self) -> frozenset[PodName]:
        return frozenset(self.held)

    def of(self, pod: PodName) -> Mapping[str, frozenset[str]]:
        """Device ids by container of one pod; empty for one that kubelet does not know."""
        return self.held.get(pod, {})

    def owners(self, ids: frozenset[str]) -> set[tuple[PodName, str]]:
        """Containers that hold any of these ids.

        Any, not all: an app container may have been given a part of what an init container
        had before it, and kubelet then lists the smaller set only.
        """
        return {(pod, name) for pod, containers in self.held.items() for name, held in containers.items() if held & ids}


class PodResources:
    """Client of kubelet's pod-resources socket, for one resource name."""

    def __init__(self, socket: str, resource: str) -> None:
        self._socket = socket
        self._resource = resource
        self._channel: grpc.aio.Channel | None = None
        self._next: asyncio.Task[KubeletView] | None = None
        self._running: asyncio.Task[KubeletView] | None = None

    async def close(self) -> None:
        for task in (self._next, self._running):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def view(self, wait: float) -> KubeletView:
        """kubelet's pods, as of after this call. Callers at the same time share one request.

        Raises `Unavailable` when kubelet gives no answer for `wait` seconds.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running, wait))
        return await asyncio.shield(self._next)

    async def _after(self, previous: asyncio.Task[KubeletView] | None, wait: float) -> KubeletView:
        """A request that starts after `previous` has ended, so that it sees what its callers have seen."""
        if previous is not None:
            await asyncio.wait({previous})
        self._running, self._next = self._next, None
        return await self._ask(time.monotonic() + wait)

    async def _ask(self, deadline: float) -> KubeletView:
        while True:
            try:
                if self._channel is None:
                    self._channel = rpc.channel(self._socket)
                request = messages.ListPodResourcesRequest()
                left = max(0.1, deadline - time.monotonic())
                return self._read(await rpc.ask(self._channel, LIST_POD_RESOURCES, request, min(CALL_S, left)))
            except grpc.aio.AioRpcError as fault:
                if time.monotonic() + RETRY_S >= deadline:
                    text = f"kubelet's pod resources, {self._socket}: {fault.code().name}: {fault.details()}"
                    raise Unavailable(text) from fault
                await asyncio.sleep(RETRY_S)

    def _read(self, answer: messages.ListPodResourcesResponse) -> KubeletView:
        return KubeletView(
            {
                (pod.namespace, pod.name): {
                    container.name: ids for container in pod.containers if (ids := self._ids(container))
                }
                for pod in answer.pod_resources
            }
        )

    def _ids(self, container: messages.ContainerResources) -> frozenset[str]:
        return frozenset(
            device
            for entry in container.devices
            if entry.resource_name == self._resource
            for device in entry.device_ids
        )


class _Entry(Struct, frozen=True, rename="pascal"):
    pod_uid: str = msgspec.field(name="PodUID", default="")
    container_name: str = ""
    resource_name: str = ""
    device_ids: dict[str, list[str]] | None = msgspec.field(name="DeviceIDs", default=None)
    """By NUMA node."""
    alloc_resp: bytes | None = None
    """What the plugin answered, a ContainerAllocateResponse."""


class _Inner(Struct, frozen=True, rename="pascal"):
    pod_device_entries: list[_Entry] | None = None


class _File(Struct, frozen=True, rename="pascal"):
    data: _Inner = _Inner()


_decode = msgspec.json.Decoder(_File).decode


class Kept(Struct, frozen=True):
    """One container's devices as kubelet's checkpoint has them."""

    uid: str
    container: str
    ids: frozenset[str]
    answer: bytes


class KubeletFile:
    """kubelet's device checkpoint, ``kubelet_internal_checkpoint``, read only.

    Not a promised interface, though unchanged since Kubernetes 1.20; so a file that cannot be
    read means "not known" and never "nothing held".
    """

    def __init__(self, folder: str, resource: str) -> None:
        self._path = Path(folder) / "kubelet_internal_checkpoint"
        self._resource = resource

    def read(self) -> tuple[Kept, ...] | None:
        """Entries of our resource, init containers among them; None if there is nothing to be read."""
        try:
            entries = _decode(self._path.read_bytes()).data.pod_device_entries
        except OSError:
            return None
        except msgspec.MsgspecError as fault:
            log.warning("kubelet's checkpoint cannot be read", extra={"path": str(self._path), "fault": str(fault)})
            return None
        return tuple(
            Kept(
                entry.pod_uid,
                entry.container_name,
                frozenset(one for ids in (entry.device_ids or {}).values() for one in ids),
                entry.alloc_resp or b"",
            )
            for entry in entries or ()
            if entry.resource_name == self._resource
        )
