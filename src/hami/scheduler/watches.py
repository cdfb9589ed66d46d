"""The two watches that feed the ledger, and how they are begun anew."""

import asyncio
import gc

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.watch import Contact, follow
from hami.scheduler.gate import Gate
from hami.scheduler.sync import NodeDoor, PodDoor
from hami.wire.objects import Node, Pod


class Watches:
    """Follows nodes and pods into their doors."""

    def __init__(self, kube: Kube, nodes: NodeDoor, pods: PodDoor, gate: Gate) -> None:
        self._kube = kube
        self._nodes = nodes
        self._pods = pods
        self._gate = gate
        self._again = asyncio.Event()
        self._frozen = False
        self.contacts = {"nodes": Contact(), "pods": Contact()}
        """How each watch goes, for metrics."""

    async def run(self) -> None:
        """Follow for ever; `rebuild` makes it begin anew."""
        while True:
            self._again.clear()
            self._gate.rebuild()
            self._nodes.begin()
            self._pods.begin()
            async with asyncio.TaskGroup() as group:
                following = [
                    group.create_task(
                        follow(self._kube, paths.nodes(), Node, None, self._nodes, contact=self.contacts["nodes"])
                    ),
                    group.create_task(
                        follow(self._kube, paths.pods(), Pod, None, self._pods, contact=self.contacts["pods"])
                    ),
                ]
                await self._again.wait()
                for task in following:
                    task.cancel()

    async def rebuild(self) -> None:
        """Read everything once more. The gate is closed when this returns, and opens when it is done."""
        self._gate.rebuild()
        self._again.set()

    def freeze(self) -> None:
        """What was read in bulk lives as long as the process: once is enough for the garbage collector to see it."""
        if not self._frozen and all(contact.synced for contact in self.contacts.values()):
            gc.collect()
            gc.freeze()
            self._frozen = True
