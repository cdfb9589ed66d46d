"""Simulated agents: each bind is acknowledged, for nodes that have no machine behind them.

An agent here does to the API server what a real one and its kubelet do (empties
the to-allocate list, marks success, reports the pod running, removes it when it
is deleted), as fast as it is allowed to, and nothing to any hardware.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import NotFound
from hami.kube.reflector import Added, Deleted, Event, Modified
from hami.kube.watch import follow
from hami.model.errors import HamiError
from hami.sim.reports import renew, running
from hami.wire import annotations as keys
from hami.wire.objects import Pod

log = logging.getLogger(__name__)

TO_ALLOCATE = "hami.io/vgpu-devices-to-allocate"


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
