"""The watches that feed the ledger, and how they are begun anew."""

import asyncio

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.reflector import Event, Synced
from hami.kube.watch import Contact, follow
from hami.scheduler.gate import Gate
from hami.scheduler.watch.sync import NodeDoor, PodDoor, QuotaDoor
from hami.wire.objects import Node, Pod, ResourceQuota


class Watches:
    """Follows nodes, pods and quotas into their doors."""

    def __init__(self, kube: Kube, nodes: NodeDoor, pods: PodDoor, gate: Gate, quotas: QuotaDoor | None = None) -> None:
        self._kube = kube
        self._nodes = nodes
        self._pods = pods
        self._quotas = quotas
        self._gate = gate
        self._again = asyncio.Event()
        self.contacts = {"nodes": Contact(), "pods": Contact(), **({"resourcequotas": Contact()} if quotas else {})}
        """How each watch goes, for metrics."""

    @property
    def synced(self) -> bool:
        """Whether all there is has been read."""
        return all(contact.synced for contact in self.contacts.values())

    async def run(self) -> None:
        """Follow for ever; `rebuild` makes it begin anew."""
        while True:
            self._again.clear()
            self._gate.rebuild()
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._follow())
                await self._again.wait()
                following.cancel()

    async def _follow(self) -> None:
        """Quotas first, since no decision may be made without them. Then pods: a pod on a node that is not
        there yet is only noted, and each node is then worked out once."""
        self._nodes.begin()
        self._pods.begin()
        pods_told, quotas_told = asyncio.Event(), asyncio.Event()

        def tell(event: Event[Pod]) -> None:
            self._pods(event)
            if isinstance(event, Synced):
                pods_told.set()

        def tell_quota(event: Event[ResourceQuota]) -> None:
            if self._quotas:
                self._quotas(event)
            if isinstance(event, Synced):
                quotas_told.set()

        # By pages: kube-apiserver spends a third on them of what a streamed list costs it (measured on 1.34).
        async with asyncio.TaskGroup() as group:
            if self._quotas:
                self._quotas.begin()
                contact, path = self.contacts["resourcequotas"], paths.resource_quotas()
                group.create_task(
                    follow(self._kube, path, ResourceQuota, None, tell_quota, contact=contact, streaming=False)
                )
                await quotas_told.wait()
            group.create_task(
                follow(self._kube, paths.pods(), Pod, None, tell, contact=self.contacts["pods"], streaming=False)
            )
            await pods_told.wait()
            nodes = self.contacts["nodes"]
            await follow(self._kube, paths.nodes(), Node, None, self._nodes, contact=nodes, streaming=False)

    async def rebuild(self) -> None:
        """Read everything once more. The gate is closed when this returns, and opens when it is done."""
        self._gate.rebuild()
        self._again.set()
