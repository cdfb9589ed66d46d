"""Simulated nodes: Node objects with registered cards, and agents that acknowledge binds.

For scale and for the demo: the control plane is real, the machines are not.
An agent here does to the API server what a real one and its kubelet do (empties
the to-allocate list, marks success, reports the pod running, removes it when it
is deleted), as fast as it is allowed to, and nothing to any hardware.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import AlreadyExists, NotFound
from hami.kube.reflector import Added, Deleted, Event, Modified
from hami.kube.watch import follow
from hami.model.card import MIG, Card, MigProfile
from hami.model.errors import HamiError
from hami.model.ids import CardId, Family
from hami.wire import annotations as keys
from hami.wire import register
from hami.wire.objects import Pod

log = logging.getLogger(__name__)

TO_ALLOCATE = "hami.io/vgpu-devices-to-allocate"
REGISTER = "hami.io/node-nvidia-register"
SCORES = "hami.io/node-nvidia-score"
LABEL = "hami.io/simulated"
LEASES = "kube-node-lease"


class Shape(Struct, frozen=True):
    """What each simulated node has."""

    cards: int = 8
    mem_mib: int = 81920
    slots: int = 10
    model: str = "NVIDIA-NVIDIA H100 80GB HBM3"
    cpu: str = "64"
    memory: str = "512Gi"
    pods: int = 250
    resource: str = "nvidia.com/gpu"
    links: tuple[tuple[int, ...], ...] = ()
    """What the links between each two cards are worth, a row a card."""
    mig_profiles: tuple[MigProfile, ...] = ()
    """What its cards offer; with any they are in MIG mode."""


PLAIN = Shape()


def cards_of(node: str, shape: Shape) -> tuple[Card, ...]:
    """The node's cards, ids made of the node's name; two NUMA nodes."""
    return tuple(
        Card(
            id=CardId(f"GPU-{node}-{index}"),
            family=Family("NVIDIA"),
            model=shape.model,
            index=index,
            slots=shape.slots,
            mem_mib=shape.mem_mib,
            core_percent=100,
            numa=index * 2 // shape.cards,
            mode=MIG if shape.mig_profiles else "hami-core",
            mig_profiles=shape.mig_profiles,
        )
        for index in range(shape.cards)
    )


def node_object(name: str, shape: Shape, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A Ready Node whose kubelet offers the cards' slots."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    amounts = {
        "cpu": shape.cpu,
        "memory": shape.memory,
        "pods": str(shape.pods),
        shape.resource: str(shape.cards * shape.slots),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, LABEL: "true", "gpu": "on", **(labels or {})},
            "annotations": registered(name, shape),
        },
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Simulated",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
            ],
            "nodeInfo": {"kubeletVersion": "v1.34.4", "operatingSystem": "linux", "architecture": "amd64"},
        },
    }


def registered(name: str, shape: Shape) -> dict[str, str]:
    """What the node's agent writes of its cards."""
    cards = cards_of(name, shape)
    written = {REGISTER: register.encode(cards)}
    if shape.links:
        scores = {
            card.id: {other.id: row[other.index] for other in cards if other is not card}
            for card, row in zip(cards, shape.links, strict=True)
        }
        written[SCORES] = register.encode_scores(scores)
    return written


async def create_nodes(
    kube: Kube,
    names: Iterable[str],
    shape: Shape = PLAIN,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Create the Node objects, 16 at a time. Ones that exist stay as they are."""
    await each(names, lambda name: _create(kube, node_object(name, shape, labels)), 16)


async def _create(kube: Kube, node: dict[str, Any]) -> None:
    try:
        await kube.create(paths.nodes(), node)
    except AlreadyExists:
        log.debug("node %s exists", node["metadata"]["name"])


async def each(items: Iterable[Any], work: Callable[[Any], Any], at_once: int) -> None:
    """`work` on every item, `at_once` in flight. The first fault ends it."""
    source = iter(items)

    async def worker() -> None:
        for item in source:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


class Acknowledged(Struct):
    """What the agents have done so far."""

    running: int = 0
    removed: int = 0
    faults: int = 0


class Agents:
    """All simulated agents and kubelets of a cluster, in one task.

    `allocate` may be turned off to show an agent that never answers; the speed is
    the client's own (`Kube.connect(qps=...)`), as it is for a real agent.
    """

    def __init__(
        self, kube: Kube, names: Sequence[str], *, allocate: bool = True, at_once: int = 8, heartbeat: float | None = 20
    ) -> None:
        self._kube = kube
        self._names = frozenset(names)
        self._allocate = allocate
        self._at_once = at_once
        self._heartbeat = heartbeat
        self._work: asyncio.Queue[Pod] = asyncio.Queue()
        self._seen: dict[str, str] = {}
        """What was last undertaken for a pod, by uid."""
        self.done = Acknowledged()

    async def run(self) -> None:
        """Acknowledge for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                follow(self._kube, paths.pods(), Pod, {"fieldSelector": "spec.nodeName!="}, self._on_event)
            )
            for _ in range(self._at_once):
                group.create_task(self._worker())
            if self._heartbeat:
                group.create_task(self._beat(self._heartbeat))

    def _on_event(self, event: Event[Pod]) -> None:
        match event:
            case Added(pod) | Modified(pod) if pod.spec.node_name in self._names:
                due = "remove" if pod.metadata.deletion_timestamp else "start" if pod.status.phase == "Pending" else ""
                if due and self._seen.get(pod.metadata.uid) != due:
                    self._seen[pod.metadata.uid] = due
                    self._work.put_nowait(pod)
            case Deleted(uid=uid):
                self._seen.pop(uid, None)

    async def _worker(self) -> None:
        while True:
            pod = await self._work.get()
            try:
                await (self._remove(pod) if pod.metadata.deletion_timestamp else self._start(pod))
            except NotFound:
                continue
            except HamiError as fault:
                self.done.faults += 1
                self._seen.pop(pod.metadata.uid, None)
                log.warning("simulated agent: pod %s: %s", pod.metadata.name, fault)

    async def _start(self, pod: Pod) -> None:
        annotations = pod.metadata.annotations or {}
        if TO_ALLOCATE in annotations:
            if not self._allocate:
                return
            await self._kube.patch(
                paths.pods(pod.metadata.namespace, pod.metadata.name), granted(pod.metadata.uid, annotations)
            )
        await self._kube.patch(
            paths.pods(pod.metadata.namespace, pod.metadata.name, "status"), running(pod), "strategic"
        )
        self.done.running += 1

    async def _remove(self, pod: Pod) -> None:
        """What kubelet does when the containers have ended."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}}
        await self._kube.delete(paths.pods(pod.metadata.namespace, pod.metadata.name), options)
        self.done.removed += 1

    async def _beat(self, every: float) -> None:
        """Renew each node's Lease, spread over the period, so that no node is taken for dead."""
        while True:
            pause = every / max(1, len(self._names))
            for name in sorted(self._names):
                try:
                    await renew(self._kube, name, every)
                except HamiError as fault:
                    log.info("lease of %s: %s", name, fault)
                await asyncio.sleep(pause)


def granted(uid: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    """The patch of an agent that has granted every container: the list emptied, phase success."""
    containers = annotations[TO_ALLOCATE].count(";")
    return {
        "metadata": {
            "uid": uid,
            "annotations": {
                TO_ALLOCATE: keys.encode_devices([()] * containers),
                keys.BIND_PHASE: keys.PHASE_SUCCESS,
            },
        }
    }


def running(pod: Pod) -> dict[str, Any]:
    """The status a kubelet reports once all containers run."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "metadata": {"uid": pod.metadata.uid},
        "status": {
            "phase": "Running",
            "startTime": now,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("Ready", "ContainersReady", "Initialized")
            ],
            "containerStatuses": [
                {
                    "name": container.name,
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "image": "simulated",
                    "imageID": "",
                    "state": {"running": {"startedAt": now}},
                }
                for container in pod.spec.containers
            ],
        },
    }


async def renew(kube: Kube, node: str, period: float) -> None:
    """Renew the node's Lease, making it where it is missing."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    spec = {"holderIdentity": node, "leaseDurationSeconds": max(40, int(period * 2)), "renewTime": stamp}
    try:
        await kube.patch(paths.leases(LEASES, node), {"spec": spec})
    except NotFound:
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node}, "spec": spec}
        await kube.create(paths.leases(LEASES), lease)
