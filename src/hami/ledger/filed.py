"""A snapshot file into a ledger, by the door of the API server's truth, so that the same code decides on it."""

from collections.abc import Mapping

from msgspec import Struct

from hami.ledger.cluster import Ledger
from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, ContainerKind, PodRef
from hami.model.ids import PodUid
from hami.model.quota import Limit, Quantum
from hami.plan.exact.charge import charges
from hami.plan.exact.quota import spent
from hami.wire.snapshot import NodeEntry, PodEntry, QuotaEntry, Snapshot


class Filed(Struct):
    """A cluster from a file."""

    ledger: Ledger
    asks: Mapping[PodUid, Ask]
    """What pods ask, bound or not, where the file says it."""
    waiting: tuple[PodEntry, ...]

    def ask_of(self, pod: PodRef) -> Ask | None:
        return self.asks.get(pod.uid)


def rebuilt(snapshot: Snapshot) -> Filed:
    """The cluster of a snapshot. What is held counts as bound: the slices are taken all the same."""
    ledger = Ledger()
    for pod in snapshot.pods:
        record = pod_record(pod)
        if record is not None:
            ledger.set_pod(record)
    for node in snapshot.nodes:
        ledger.set_node(node_record(node))
    for quota in snapshot.quotas:
        ledger.set_quota(quota_record(quota))
    asks = {pod.uid: pod.ask.ask(pod.ref) for pod in snapshot.pods if pod.ask is not None}
    return Filed(ledger, asks, tuple(pod for pod in snapshot.pods if pod.node is None))


def node_record(node: NodeEntry) -> NodeRecord:
    return NodeRecord(
        name=node.name,
        cards=tuple(card.card() for card in node.cards),
        cordoned=frozenset(card.id for card in node.cards if card.cordoned),
        problem=node.problem,
        links=node.links,
    )


def quota_record(quota: QuotaEntry) -> QuotaRecord:
    limits = (Limit(Quantum(one.resource, one.family, one.measure, one.unit), one.most) for one in quota.limits)
    return QuotaRecord(quota.namespace, quota.name, tuple(limits))


def pod_record(pod: PodEntry) -> PodRecord | None:
    """What a pod holds; None for one that waits."""
    if pod.node is None:
        return None
    kinds = [one.kind for one in pod.ask.containers] if pod.ask else []
    if len(kinds) != len(pod.slices):
        kinds = [ContainerKind.APP] * len(pod.slices)  # never less than what is used, as the scheduler counts it
    containers = list(zip(kinds, pod.slices, strict=True))
    return PodRecord(
        ref=pod.ref,
        node=pod.node,
        containers=pod.slices,
        charges=charges(containers, init_done=pod.init_done),
        spent=spent(containers, pod.init_done),
        priority=pod.priority,
        problem=pod.problem,
    )
