"""A simulated kubelet: its side of the device plugin and pod-resources protocols, on real sockets.

It follows the device manager of Kubernetes 1.34 where a plugin can tell: admission one pod
after the other, reuse of init containers' devices, when pod-resources lists what (`holdings` says how), sockets
removed at a start; plugins are `plugins`. It runs no containers and knows no API server.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from hami.agent.kubelet import rpc
from hami.model.errors import HamiError
from hami.sim.holdings import Holding, Place, containers, read, shown, write
from hami.sim.plugins import Endpoint, Plugins
from hami.wire.objects import Container, Pod
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto import podresources_pb2 as resources
from hami.wire.proto.services import (
    ALLOCATE,
    LIST_POD_RESOURCES,
    PRE_START,
    PREFERRED,
    REGISTER,
)

CALL_S = 60.0
PRE_START_S = 30.0


class Rejected(HamiError):
    """The pod is not admitted: UnexpectedAdmissionError on a real node."""


class NotStarted(HamiError):
    """A container does not start: CreateContainerConfigError on a real node. It is tried again later."""


class SimKubelet(Plugins):
    """One node's kubelet. Start it with `async with`."""

    def __init__(self, plugin_folder: Path, resources_socket: Path, chance: random.Random | None = None) -> None:
        super().__init__(plugin_folder)
        self.resources_socket = resources_socket
        self._chance = chance or random.Random(0)  # noqa: S311 - which of equal devices comes first
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
        self.held = read(self.folder)
        self._allocated = self._devices()
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
        listed = (pod for uid, pod in self.pods.items() if self.lists_admitting or uid != self._admitting)
        return resources.ListPodResourcesResponse(pod_resources=[shown(pod, self.held) for pod in listed])

    def _write_file(self) -> None:
        if self.writes_file:
            write(self.folder, self.held)
