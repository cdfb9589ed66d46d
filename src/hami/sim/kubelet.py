"""A simulated kubelet: its side of the device plugin and pod-resources protocols, on real sockets.

It follows the device manager of Kubernetes 1.34 where a plugin can tell: admission one pod
after the other, reuse of init containers' devices, what pod-resources lists and when, the
checkpoint file, sockets removed at a start. It runs no containers and knows no API server.
"""

import asyncio
import base64
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
from msgspec import Struct

from hami.agent.kubelet import rpc
from hami.model.errors import HamiError
from hami.wire.objects import Container, Pod
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto import podresources_pb2 as resources
from hami.wire.proto.services import (
    ALLOCATE,
    HEALTHY,
    LIST_AND_WATCH,
    LIST_POD_RESOURCES,
    OPTIONS,
    PRE_START,
    PREFERRED,
    REGISTER,
    VERSION,
)

CALL_S = 60.0
PRE_START_S = 30.0
FILE_NAME = "kubelet_internal_checkpoint"


class Rejected(HamiError):
    """The pod is not admitted: UnexpectedAdmissionError on a real node."""


class NotStarted(HamiError):
    """A container does not start: CreateContainerConfigError on a real node. It is tried again later."""


class Endpoint:
    """A registered plugin."""

    def __init__(self, channel: grpc.aio.Channel, options: messages.DevicePluginOptions) -> None:
        self.channel = channel
        self.options = options
        self.devices: dict[str, messages.Device] = {}
        self.stopped = False
        self.listening: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> set[str]:
        return set() if self.stopped else {id for id, one in self.devices.items() if one.health == HEALTHY}  # noqa: A001


class Holding(Struct, frozen=True):
    """What one container has of one resource, and the answer it came with."""

    ids: frozenset[str]
    answer: bytes


Place = tuple[str, str, str]
"""Pod uid, container, resource."""


class SimKubelet:
    """One node's kubelet. Start it with `async with`."""

    def __init__(self, plugin_folder: Path, resources_socket: Path, chance: random.Random | None = None) -> None:
        self.folder = plugin_folder
        self.resources_socket = resources_socket
        self._chance = chance or random.Random(0)  # noqa: S311 - which of equal devices comes first
        self.endpoints: dict[str, Endpoint] = {}
        self.pods: dict[str, Pod] = {}
        """By uid, in the order kubelet came to know them."""
        self.held: dict[Place, Holding] = {}
        self.lists_admitting = True
        """Whether pod-resources lists a pod that is being admitted, as a real one does."""
        self.answers_resources = True
        self.writes_file = True
        self.asked_while_allocating = 0
        """Pod-resources calls that came while an Allocate was on its way: a real kubelet may lose ids by those."""
        self._allocating = False
        self._allocated: dict[str, set[str]] = {}
        self._reusable: dict[str, set[str]] = {}
        self._removed = False
        self._admitting = ""
        self._servers: list[grpc.aio.Server] = []
        self._heard = asyncio.Event()

    # life

    async def __aenter__(self) -> "SimKubelet":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """As kubelet does: every socket in the folder goes, what was handed out is read back."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.resources_socket.parent.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.is_socket():
                path.unlink()
        self.resources_socket.unlink(missing_ok=True)
        self._read_file()
        self._servers = [
            rpc.server([(REGISTER, self._register)], str(self.folder / "kubelet.sock")),
            rpc.server([(LIST_POD_RESOURCES, self._list)], str(self.resources_socket)),
        ]
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        for endpoint in self.endpoints.values():
            await self._hang_up(endpoint)
        self.endpoints.clear()
        for server in self._servers:
            await server.stop(grace=None)
        self._servers = []
        for path in (self.folder / "kubelet.sock", self.resources_socket):
            path.unlink(missing_ok=True)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def registered(self, resource: str, wait: float = 10.0) -> None:
        """Until a plugin serves `resource` and has listed its devices."""
        async with asyncio.timeout(wait):
            while resource not in self.endpoints or not self.endpoints[resource].devices:
                self._heard.clear()
                await self._heard.wait()

    def allocatable(self, resource: str) -> int:
        endpoint = self.endpoints.get(resource)
        return len(endpoint.healthy) if endpoint else 0

    # plugins

    async def _register(self, request: messages.RegisterRequest, context: Any) -> messages.Empty:
        if request.version != VERSION:
            await context.abort(grpc.StatusCode.UNKNOWN, f"version {request.version} is not supported")
        channel = rpc.channel(str(self.folder / request.endpoint))
        options = await rpc.ask(channel, OPTIONS, messages.Empty(), 5.0)
        endpoint = Endpoint(channel, options)
        before = self.endpoints.get(request.resource_name)
        self.endpoints[request.resource_name] = endpoint
        if before is not None:
            await self._hang_up(before)
        endpoint.listening = asyncio.create_task(self._listen(endpoint))
        return messages.Empty()

    async def _listen(self, endpoint: Endpoint) -> None:
        stream: AsyncIterator[messages.ListAndWatchResponse] = rpc.listen(
            endpoint.channel, LIST_AND_WATCH, messages.Empty()
        )
        try:
            async for answer in stream:
                endpoint.devices = {device.ID: device for device in answer.devices}
                self._heard.set()
        except grpc.aio.AioRpcError:
            pass
        endpoint.stopped = True

    @staticmethod
    async def _hang_up(endpoint: Endpoint) -> None:
        endpoint.stopped = True
        if endpoint.listening is not None:
            endpoint.listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await endpoint.listening
        await endpoint.channel.close()

    # pods

    async def admit(self, pod: Pod) -> None:
        """Give every container of `pod` its devices, init containers first. Raises `Rejected`."""
        uid = pod.metadata.uid
        self.pods[uid] = pod
        self._admitting = uid
        self._reusable = {}
        try:
            for container, init in containers(pod):
                await self._admit_container(uid, container, init)
        except Rejected:
            self.remove(uid)
            raise
        finally:
            self._admitting = ""

    async def start_container(self, uid: str, name: str) -> messages.ContainerAllocateResponse | None:
        """What the container would be run with; None for one without devices. Raises `NotStarted`."""
        found: messages.ContainerAllocateResponse | None = None
        for (owner, container, resource), holding in list(self.held.items()):
            if (owner, container) != (uid, name):
                continue
            endpoint = self.endpoints.get(resource)
            if endpoint is None or endpoint.stopped:
                raise NotStarted(f"endpoint of {resource} has been stopped")
            if endpoint.options.pre_start_required:
                request = messages.PreStartContainerRequest(devices_ids=self._shuffled(holding.ids))
                try:
                    await rpc.ask(endpoint.channel, PRE_START, request, PRE_START_S)
                except grpc.aio.AioRpcError as fault:
                    raise NotStarted(fault.details() or "") from fault
            found = messages.ContainerAllocateResponse.FromString(holding.answer)
        return found

    def remove(self, uid: str) -> None:
        """The pod has ended; its devices are free at the next look."""
        self.pods.pop(uid, None)
        self._removed = True

    async def _admit_container(self, uid: str, container: Container, init: bool) -> None:
        for resource, amount in (container.resources.limits or {}).items():
            if resource not in self.endpoints:
                continue
            self._collect()
            ids = await self._choose(uid, container.name, resource, int(amount))
            if ids:
                await self._allocate((uid, container.name, resource), ids)
            held = self.held[uid, container.name, resource].ids
            reusable = self._reusable.setdefault(resource, set())
            if init and container.restart_policy != "Always":
                reusable |= held
            else:
                reusable -= held

    async def _choose(self, uid: str, name: str, resource: str, needed: int) -> list[str]:
        endpoint = self.endpoints[resource]
        if (uid, name, resource) in self.held:
            return []
        if not endpoint.healthy:
            raise Rejected(f"no healthy devices present; cannot allocate unhealthy devices {resource}")
        allocated = self._allocated.setdefault(resource, set())
        chosen = self._shuffled(self._reusable.get(resource, set()))[:needed]
        allocated |= set(chosen)
        if len(chosen) == needed:
            return chosen
        available = endpoint.healthy - allocated
        if len(available) < needed - len(chosen):
            raise Rejected(f"requested number of devices unavailable for {resource}")
        preferred: set[str] = set()
        if endpoint.options.get_preferred_allocation_available:
            preferred = await self._preferred(endpoint, available | set(chosen), chosen, needed)
        order = [*self._shuffled(preferred & available), *self._shuffled(available - preferred)]
        chosen += order[: needed - len(chosen)]
        self._allocated.setdefault(resource, set()).update(chosen)
        return chosen

    async def _preferred(self, endpoint: Endpoint, available: set[str], must: Sequence[str], size: int) -> set[str]:
        one = messages.ContainerPreferredAllocationRequest(
            available_deviceIDs=self._shuffled(available), must_include_deviceIDs=must, allocation_size=size
        )
        request = messages.PreferredAllocationRequest(container_requests=[one])
        try:
            answer = await rpc.ask(endpoint.channel, PREFERRED, request, CALL_S)
        except grpc.aio.AioRpcError as fault:
            raise Rejected(f"GetPreferredAllocation: {fault.details()}") from fault
        return {id for each in answer.container_responses for id in each.deviceIDs}  # noqa: A001

    async def _allocate(self, place: Place, ids: list[str]) -> None:
        request = messages.AllocateRequest(container_requests=[messages.ContainerAllocateRequest(devices_ids=ids)])
        self._allocating = True
        try:
            answer = await rpc.ask(self.endpoints[place[2]].channel, ALLOCATE, request, CALL_S)
        except grpc.aio.AioRpcError as fault:
            self._allocated = self._devices()
            raise Rejected(f"Allocate failed due to {fault.details()}") from fault
        finally:
            self._allocating = False
        # As in kubelet: only what is held is noted here. If pod-resources was asked during the call after
        # a pod had gone, the ids of this allocation were dropped from `_allocated`, and may be given out again.
        self.held[place] = Holding(frozenset(ids), answer.container_responses[0].SerializeToString())
        self._write_file()

    def _collect(self) -> None:
        """Free what pods that are gone had."""
        gone = [place for place in self.held if place[0] not in self.pods]
        if not gone and not self._removed:
            return
        self._removed = False
        for place in gone:
            del self.held[place]
        self._allocated = self._devices()

    def _devices(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for (_, _, resource), holding in self.held.items():
            found.setdefault(resource, set()).update(holding.ids)
        return found

    def _shuffled(self, ids: Sequence[str] | set[str] | frozenset[str]) -> list[str]:
        listed = sorted(ids)
        self._chance.shuffle(listed)  # a Go map has no order
        return listed

    # pod resources

    async def _list(self, _: resources.ListPodResourcesRequest, context: Any) -> resources.ListPodResourcesResponse:
        self.asked_while_allocating += self._allocating
        if not self.answers_resources:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        self._collect()
        shown = (pod for uid, pod in self.pods.items() if self.lists_admitting or uid != self._admitting)
        return resources.ListPodResourcesResponse(pod_resources=[self._shown(pod) for pod in shown])

    def _shown(self, pod: Pod) -> resources.PodResources:
        return resources.PodResources(
            name=pod.metadata.name,
            namespace=pod.metadata.namespace,
            containers=[
                resources.ContainerResources(name=container.name, devices=list(self._shown_devices(pod, container)))
                for container, init in containers(pod)
                if not init or container.restart_policy == "Always"
            ],
        )

    def _shown_devices(self, pod: Pod, container: Container) -> Iterator[resources.ContainerDevices]:
        for (uid, name, resource), holding in self.held.items():
            if (uid, name) == (pod.metadata.uid, container.name):
                for one in sorted(holding.ids):  # kubelet sends an entry a device
                    yield resources.ContainerDevices(resource_name=resource, device_ids=[one])

    # the checkpoint file

    def _write_file(self) -> None:
        if not self.writes_file:
            return
        entries = [
            {
                "PodUID": uid,
                "ContainerName": name,
                "ResourceName": resource,
                "DeviceIDs": {"-1": sorted(holding.ids)},
                "AllocResp": base64.b64encode(holding.answer).decode(),
            }
            for (uid, name, resource), holding in self.held.items()
        ]
        text = msgspec.json.encode({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {}}, "Checksum": 0})
        temporary = self.folder / f".{FILE_NAME}"
        temporary.write_bytes(text)
        temporary.replace(self.folder / FILE_NAME)

    def _read_file(self) -> None:
        path = self.folder / FILE_NAME
        self.held.clear()
        if path.exists():
            for entry in msgspec.json.decode(path.read_bytes())["Data"]["PodDeviceEntries"] or ():
                ids = frozenset(one for some in entry["DeviceIDs"].values() for one in some)
                place = (entry["PodUID"], entry["ContainerName"], entry["ResourceName"])
                self.held[place] = Holding(ids, base64.b64decode(entry["AllocResp"]))
        self._allocated = self._devices()


def containers(pod: Pod) -> list[tuple[Container, bool]]:
    """In kubelet's order, with whether it stands among the init containers."""
    return [
        *((one, True) for one in pod.spec.init_containers or ()),
        *((one, False) for one in pod.spec.containers),
    ]
