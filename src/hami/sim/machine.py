"""A simulated node for a real agent: a Node object, and a kubelet that admits the pods bound to it. No root.

The agent beside it is the real one and notices no difference; containers are not run, their
pods only say so. `python -m hami.sim.machine --help` is its command line.
"""

import argparse
import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Any

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import AlreadyExists, NotFound
from hami.kube.reflector import Added, Deleted, Event, Modified
from hami.kube.watch import follow
from hami.model.errors import HamiError
from hami.sim.holdings import containers
from hami.sim.kubelet import NotStarted, Rejected, SimKubelet
from hami.sim.nodes import Shape, node_object
from hami.sim.reports import renew, running
from hami.wire.objects import Pod
from hami.wire.proto import deviceplugin_pb2 as messages

log = logging.getLogger(__name__)
RETRY_S = 2.0
"""Between two tries to start a container; a real kubelet takes ten seconds or more."""
HEARTBEAT_S = 10.0
COUNT_S = 0.2


class Machine:
    """One node. `shuffle` admits pods that wait together in random order, as a kubelet that sorts them its own way."""

    def __init__(self, kube: Kube, name: str, kubelet: SimKubelet, *, shuffle: int | None = None) -> None:
        self._kube = kube
        self._name = name
        self.kubelet = kubelet
        self._chance = random.Random(shuffle) if shuffle is not None else None  # noqa: S311
        self._waiting: dict[str, Pod] = {}
        self._due = asyncio.Event()
        self._starting: set[asyncio.Task[None]] = set()
        self.answers: dict[tuple[str, str], messages.ContainerAllocateResponse] = {}
        """What each container would be run with, by pod name and container."""
        self.settle = 0.0
        """Seconds to gather pods before the next is admitted; with `shuffle` it makes their order differ more."""

    async def run(self) -> None:
        """Until cancelled."""
        await self._create()
        await self.kubelet.start()
        try:
            async with asyncio.TaskGroup() as group:
                selector = {"fieldSelector": f"spec.nodeName={self._name}"}
                group.create_task(follow(self._kube, paths.pods(), Pod, selector, self._on_event))
                group.create_task(self._admit_all())
                group.create_task(self._count())
                group.create_task(self._beat())
        finally:
            for task in self._starting:
                task.cancel()
            await self.kubelet.stop()

    async def _create(self) -> None:
        node = node_object(self._name, Shape(cards=0))
        del node["metadata"]["annotations"]
        try:
            await self._kube.create(paths.nodes(), node)
        except AlreadyExists:
            log.info("node exists", extra={"node": self._name})

    # pods

    def _on_event(self, event: Event[Pod]) -> None:
        match event:
            case Added(pod) | Modified(pod):
                self._changed(pod)
            case Deleted(uid=uid):
                self._waiting.pop(uid, None)
                self.kubelet.remove(uid)

    def _changed(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        if pod.metadata.deletion_timestamp is not None or pod.finished:
            self._waiting.pop(uid, None)
            self.kubelet.remove(uid)
            if pod.metadata.deletion_timestamp is not None:
                self._spawn(self._delete(pod))
        elif pod.status.phase == "Running":
            self.kubelet.pods.setdefault(uid, pod)  # from before a restart
        elif uid not in self.kubelet.pods and uid not in self._waiting:
            self._waiting[uid] = pod
            self._due.set()

    async def _admit_all(self) -> None:
        """One pod after the other, as kubelet's main loop does."""
        while True:
            await self._due.wait()
            await asyncio.sleep(self.settle)
            while self._waiting:
                uid = self._chance.choice(list(self._waiting)) if self._chance else next(iter(self._waiting))
                await self._admit(self._waiting.pop(uid))
            self._due.clear()

    async def _admit(self, pod: Pod) -> None:
        try:
            await self.kubelet.admit(pod)
        except Rejected as fault:
            status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": f"Pod was rejected: {fault}"}
            await self._report(pod, {"metadata": {"uid": pod.metadata.uid}, "status": status})
        else:
            self._spawn(self._start(pod))

    async def _start(self, pod: Pod) -> None:
        """Every container in turn; one that must not start is tried again until the pod is gone."""
        for container, _ in containers(pod):
            while pod.metadata.uid in self.kubelet.pods:
                try:
                    answer = await self.kubelet.start_container(pod.metadata.uid, container.name)
                except NotStarted as fault:
                    log.info("container waits", extra={"pod": pod.metadata.name, "why": str(fault)})
                    await asyncio.sleep(RETRY_S)
                    continue
                if answer is not None:
                    self.answers[pod.metadata.name, container.name] = answer
                break
        if pod.metadata.uid in self.kubelet.pods:
            await self._report(pod, running(pod))

    async def _report(self, pod: Pod, status: dict[str, Any]) -> None:
        path = paths.pods(pod.metadata.namespace, pod.metadata.name, "status")
        for _ in range(5):
            try:
                await self._kube.patch(path, status, "strategic")
            except NotFound:
                return
            except HamiError as fault:
                log.info("status waits", extra={"pod": pod.metadata.name, "why": str(fault)})
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _delete(self, pod: Pod) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}}
        try:
            await self._kube.delete(paths.pods(pod.metadata.namespace, pod.metadata.name), options)
        except HamiError as fault:
            log.info("pod is not deleted", extra={"pod": pod.metadata.name, "why": str(fault)})

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    # the node

    async def _count(self) -> None:
        """Keep the node's capacity as the plugins have it."""
        told: dict[str, str] = {}
        while True:
            now = {name: str(self.kubelet.allocatable(name)) for name in self.kubelet.endpoints}
            if now != told:
                status = {"status": {"capacity": now, "allocatable": now}}
                try:
                    await self._kube.patch(paths.nodes(self._name, "status"), status)
                    told = now
                except HamiError as fault:
                    log.info("node status waits", extra={"why": str(fault)})
            await asyncio.sleep(COUNT_S)

    async def _beat(self) -> None:
        while True:
            try:
                await renew(self._kube, self._name, HEARTBEAT_S)
            except HamiError as fault:
                log.info("lease waits", extra={"why": str(fault)})
            await asyncio.sleep(HEARTBEAT_S)


async def serve(kubeconfig: str | None, name: str, folder: Path, shuffle: int | None = None) -> None:
    """One machine until cancelled; its sockets are below `folder`, where a real node has /var/lib/kubelet."""
    chance = random.Random(time.time_ns() if shuffle is None else shuffle)  # noqa: S311
    kubelet = SimKubelet(folder / "device-plugins", folder / "pod-resources/kubelet.sock", chance)
    async with await Kube.connect(kubeconfig) as kube:
        await Machine(kube, name, kubelet, shuffle=shuffle).run()


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m hami.sim.machine", description=__doc__)
    options.add_argument("--node", required=True, help="name of the Node object, made if it is missing")
    options.add_argument("--folder", required=True, type=Path, help="stands for /var/lib/kubelet; keep it short")
    options.add_argument("--kubeconfig")
    options.add_argument("--shuffle", type=int, metavar="SEED", help="admit waiting pods in random order")
    given = options.parse_args()
    asyncio.run(serve(given.kubeconfig, given.node, given.folder, given.shuffle))


if __name__ == "__main__":
    main()
