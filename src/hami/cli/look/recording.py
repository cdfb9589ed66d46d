"""A live cluster into a snapshot or a stream of record lines, with the person's own credentials.

Reads nodes, pods and disruption budgets; writes nothing to the cluster. Needs no scheduler of ours.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import Forbidden, NotFound
from hami.kube.reflector import Added, Broken, Deleted, Event, Modified, Synced
from hami.kube.watch import follow
from hami.model.ask import Policies
from hami.model.ids import NodeName, PodUid
from hami.model.vendor import Vendor
from hami.scheduler.budgets import DisruptionBudget, budget_entries
from hami.scheduler.watch.entries import DatedPod, node_entry, pod_entry, quota_entry
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.records import quota_record
from hami.wire import annotations as keys
from hami.wire import record
from hami.wire.objects import Node, ResourceQuota
from hami.wire.snapshot import BudgetEntry, NodeEntry, PodEntry, PoliciesEntry, QuotaEntry, Snapshot

SILENT_S = 150.0
"""An agent that has not reported for this long is silent, as the scheduler has it by default."""

Write = Callable[[record.Line], None]


async def snapshot(kube: Kube, vendors: Sequence[Vendor], policies: Policies) -> Snapshot:
    """The cluster now. Raises `Forbidden` for one who may not list nodes or pods."""
    nodes = await kube.list(paths.nodes(), Node)
    pods = await kube.list(paths.pods(), DatedPod)
    told = [one for pod in pods if (one := pod_entry(pod, vendors, policies)) is not None]
    uids = {one.uid for one in told}
    return Snapshot(
        at=time.time(),
        nodes=tuple(sorted(_registered(nodes, vendors), key=lambda node: node.name)),
        pods=tuple(sorted(told, key=lambda pod: (pod.namespace, pod.name, pod.uid))),
        budgets=tuple(await budgets(kube, [pod for pod in pods if pod.metadata.uid in uids])),
        quotas=tuple(await quotas(kube, vendors)),
        policies=PoliciesEntry(policies.node, policies.card),
    )


async def budgets(kube: Kube, pods: Sequence[DatedPod]) -> list[BudgetEntry]:
    """Who must not be disrupted. For one who may not read budgets it is everybody: better no move than a wrong one."""
    try:
        found = await kube.list(paths.resource("policy/v1", "poddisruptionbudgets"), DisruptionBudget)
    except (Forbidden, NotFound):
        uids = tuple(sorted(PodUid(pod.metadata.uid) for pod in pods))
        return [BudgetEntry("", "(disruption budgets may not be read)", 0, uids)] if uids else []
    return budget_entries(found, pods)


async def quotas(kube: Kube, vendors: Sequence[Vendor]) -> list[QuotaEntry]:
    """What namespaces are limited to of cards; nothing for one who may not read quotas."""
    try:
        found = await kube.list(paths.resource_quotas(), ResourceQuota)
    except Forbidden:
        return []
    records = (quota_record(one, vendors) for one in found)
    return [quota_entry(one) for one in sorted(records, key=lambda one: (one.namespace, one.name)) if one.limits]


def _registered(nodes: Sequence[Node], vendors: Sequence[Vendor]) -> list[NodeEntry]:
    handshakes = Handshakes(SILENT_S, time.time)
    for node in nodes:
        handshakes.see(node.metadata.name, (node.metadata.annotations or {}).get(keys.HANDSHAKE))
    return [one for node in nodes if (one := node_entry(node, vendors, handshakes.problem)) is not None]


async def stream(kube: Kube, vendors: Sequence[Vendor], policies: Policies, write: Write) -> None:
    """Write lines for ever; cancel to end. Raises what the API server says to the first questions: later it is asked
    again and again, since a recorder outlives its server's restarts. Raises what `write` raises of a disk or a pipe."""
    for path, kind in ((paths.nodes(), Node), (paths.pods(), DatedPod)):
        await kube.page(path, kind, {"limit": 1})
    write(record.Start(time.time(), PoliciesEntry(policies.node, policies.card)))
    recorder = Recorder(vendors, policies, write, time.time)
    nodes = follow(kube, paths.nodes(), Node, None, recorder.node)
    pods = follow(kube, paths.pods(), DatedPod, None, recorder.pod)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(nodes)
            group.create_task(pods)
    except ExceptionGroup as faults:
        for fault in faults.exceptions:
            if isinstance(fault.__cause__, OSError):  # not the bug that it is for who follows
                raise fault.__cause__ from None
        raise


class Recorder:
    """Watch events into lines: told once, and again only when something has changed."""

    def __init__(self, vendors: Sequence[Vendor], policies: Policies, write: Write, clock: Callable[[], float]) -> None:
        self._vendors = vendors
        self._policies = policies
        self._write = write
        self._clock = clock
        self._nodes: dict[str, NodeEntry] = {}
        self._pods: dict[str, PodEntry] = {}
        self._unsynced = {"nodes", "pods"}

    def node(self, event: Event[Node]) -> None:
        match event:
            case Added(node) | Modified(node):
                # An agent's silence is time passing, no event; a replay has its own clock for that.
                entry = node_entry(node, self._vendors, lambda _: None)
                if entry is None:
                    self._node_gone(node.metadata.name)
                elif self._nodes.get(entry.name) != entry:
                    self._nodes[entry.name] = entry
                    self._write(record.NodeSeen(self._clock(), entry))
            case Deleted(name=name):
                self._node_gone(name)
            case Synced():
                self._synced("nodes")
            case Broken():
                pass  # as it was before

    def pod(self, event: Event[DatedPod]) -> None:
        match event:
            case Added(pod) | Modified(pod):
                if pod.finished:
                    self._left(pod.metadata.uid, pod.status.phase)
                else:
                    self._there(pod)
            case Deleted(uid=uid):
                self._left(uid, "Deleted")
            case Synced():
                self._synced("pods")
            case Broken():
                pass

    def _there(self, pod: DatedPod) -> None:
        entry = pod_entry(pod, self._vendors, self._policies)
        if entry is None:
            return
        before = self._pods.get(entry.uid)
        self._pods[entry.uid] = entry
        if before is None:
            self._write(record.PodArrived(self._clock(), entry))
        elif entry.node is not None and (before.node, before.slices) != (entry.node, entry.slices):
            self._write(record.PodBound(self._clock(), entry.uid, entry.node, entry.slices))

    def _left(self, uid: str, why: str) -> None:
        if self._pods.pop(uid, None) is not None:
            self._write(record.PodLeft(self._clock(), PodUid(uid), why))

    def _node_gone(self, name: str) -> None:
        if self._nodes.pop(name, None) is not None:
            self._write(record.NodeGone(self._clock(), NodeName(name)))

    def _synced(self, part: str) -> None:
        """Both parts told once; a relist after a cut is no new beginning."""
        with suppress(KeyError):
            self._unsynced.remove(part)
            if not self._unsynced:
                self._write(record.Synced(self._clock()))
