"""The door by which the API server's truth enters the ledger.

Watch events of nodes and pods come in here and nowhere else; a restart is the
same door replayed. What frees capacity is passed on, so that waiting pods are
tried again. Knows nothing of HTTP and decides nothing.
"""

import logging
from collections.abc import Callable, Sequence

from hami.kube.reflector import Added, Broken, Deleted, Event, Modified, Synced
from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.vendor import Vendor
from hami.scheduler.gate import NODES, PODS, Gate
from hami.scheduler.held.waiting import Waiting
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.records import node_record, pod_record, quota_record
from hami.wire import annotations as keys
from hami.wire.objects import Metadata, Node, Pod, ResourceQuota

log = logging.getLogger(__name__)

Freed = Callable[[str], None]
"""Told the name of a node that may now take a pod it could not."""
Turned = Callable[[str, str | None], None]
"""Told the name of a node that has just been taken out, with the problem, or let in again, with None."""


class NodeDoor:
    """Node events into node records."""

    def __init__(
        self,
        ledger: Ledger,
        vendors: Sequence[Vendor],
        handshakes: Handshakes,
        gate: Gate,
        freed: Freed,
        *,
        turned: Turned = lambda _node, _problem: None,
        seen: Callable[[Node], None] = lambda _node: None,
        gone: Callable[[str], None] = lambda _name: None,
    ) -> None:
        """`seen` is told every node that registers cards, once the ledger has it; `gone` the name of one that is
        deleted."""
        self._ledger = ledger
        self._vendors = vendors
        self._handshakes = handshakes
        self._gate = gate
        self._freed = freed
        self._turned = turned
        self._seen = seen
        self._told_gone = gone
        self._nodes: dict[str, Node] = {}
        """Last state of nodes that register cards, to be judged again when time alone has passed."""
        self._records: dict[str, NodeRecord] = {}
        self._unseen: set[str] = set()

    def begin(self) -> None:
        """All nodes are about to be told again; those that are not, until `Synced`, are gone."""
        self._unseen = set(self._records)

    def __call__(self, event: Event[Node]) -> None:
        match event:
            case Added(node) | Modified(node):
                self._there(node)
            case Deleted(name=name):
                self._gone(name)
            case Broken(metadata, problem):
                self._unreadable(metadata, problem)
            case Synced():
                for name in self._unseen:
                    self._gone(name)
                self._unseen = set()
                self._gate.rebuilt(NODES)

    def judge_again(self) -> None:
        """Take out the nodes whose agents have fallen silent since their last event."""
        for name in self._handshakes.turned():
            if name in self._nodes:
                self._there(self._nodes[name])

    def _there(self, node: Node) -> None:
        name = node.metadata.name
        self._unseen.discard(name)
        self._handshakes.see(name, (node.metadata.annotations or {}).get(keys.HANDSHAKE))
        record = node_record(node, self._vendors, self._handshakes.problem)
        if record is None:
            self._gone(name)
            return
        self._nodes[name] = node
        self._put(record)
        self._seen(node)

    def _put(self, record: NodeRecord) -> None:
        before = self._records.get(record.name)
        if before == record:
            return  # kubelet's heartbeat, a label: most node events are nothing to us
        self._records[record.name] = record
        self._ledger.set_node(record)
        if record.problem != (before.problem if before else None):
            self._turned(record.name, record.problem)
            if record.problem:
                log.warning("node %s takes no pods: %s", record.name, record.problem)
        if not record.problem:
            self._freed(record.name)

    def _gone(self, name: str) -> None:
        self._handshakes.forget(name)
        self._told_gone(name)
        self._nodes.pop(name, None)
        if self._records.pop(name, None) is not None:
            self._ledger.drop_node(NodeName(name))

    def _unreadable(self, metadata: Metadata, problem: str) -> None:
        self._unseen.discard(metadata.name)
        if metadata.name in self._records:
            old = self._records[metadata.name]
            self._put(NodeRecord(old.name, old.cards, old.cordoned, f"the Node object cannot be read: {problem}"))


class QuotaDoor:
    """ResourceQuota events into the ledger's limits."""

    def __init__(self, ledger: Ledger, vendors: Sequence[Vendor], eased: Callable[[str], None]) -> None:
        """`eased` is told the namespace whose limits have changed: they may have grown."""
        self._ledger = ledger
        self._vendors = vendors
        self._eased = eased
        self._unseen: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """All quotas are about to be told again; those that are not, until `Synced`, are gone."""
        self._unseen = set(self._ledger.quotas.names())

    def __call__(self, event: Event[ResourceQuota]) -> None:
        match event:
            case Added(quota) | Modified(quota):
                self._unseen.discard((quota.metadata.namespace, quota.metadata.name))
                self._there(quota)
            case Deleted(name=name, namespace=namespace):
                self._gone(namespace, name)
            case Broken(metadata, problem):
                self._unseen.discard((metadata.namespace, metadata.name))  # what it limited, it limits still
                log.warning("quota %s/%s cannot be read: %s", metadata.namespace, metadata.name, problem)
            case Synced():
                for namespace, name in self._unseen:
                    self._gone(namespace, name)
                self._unseen = set()

    def _there(self, quota: ResourceQuota) -> None:
        try:
            record = quota_record(quota, self._vendors)
        except Malformed as fault:
            log.warning("quota %s/%s cannot be read: %s", quota.metadata.namespace, quota.metadata.name, fault)
            return
        if self._ledger.set_quota(record):
            self._eased(record.namespace)

    def _gone(self, namespace: str, name: str) -> None:
        if self._ledger.drop_quota(namespace, name):
            self._eased(namespace)


class PodDoor:
    """Pod events into pod records."""

    def __init__(
        self,
        ledger: Ledger,
        vendors: Sequence[Vendor],
        waiting: Waiting,
        gate: Gate,
        freed: Freed,
        *,
        eased: Callable[[str], None] = lambda _namespace: None,
        seen: Callable[[Pod], None] = lambda _pod: None,
        gone: Callable[[PodUid], None] = lambda _uid: None,
        began: Callable[[], None] = lambda: None,
    ) -> None:
        """`eased` is told a namespace whose quota has more left, `seen` and `gone` every pod that
        comes and goes, `began` that all are told anew."""
        self._ledger = ledger
        self._vendors = vendors
        self._waiting = waiting
        self._gate = gate
        self._freed = freed
        self._eased = eased
        self._seen = seen
        self._told_gone = gone
        self._began = began
        self._unseen: set[str] = set()

    def begin(self) -> None:
        """All pods are about to be told again; those that are not, until `Synced`, are gone."""
        self._began()
        self._unseen = set(self._ledger.pods())

    def __call__(self, event: Event[Pod]) -> None:
        match event:
            case Added(pod) | Modified(pod):
                self._there(pod)
            case Deleted(uid=uid):
                self._gone(uid)
            case Broken(metadata, problem):
                self._unseen.discard(metadata.uid)  # what it held, it may hold still
                log.warning("pod %s/%s cannot be read: %s", metadata.namespace, metadata.name, problem)
            case Synced():
                for uid in self._unseen:
                    self._gone(uid)
                self._unseen = set()
                self._gate.rebuilt(PODS)

    def _there(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        self._unseen.discard(uid)
        if pod.finished:
            self._gone(uid)
            return
        self._seen(pod)
        record = pod_record(pod, self._vendors)
        if record is not None:
            self._put(record)
        elif pod.spec.node_name:
            # Bound by somebody else, without a record: what we held for it is held in vain.
            self._release(uid)
        elif pod.metadata.deletion_timestamp is not None:
            self._release(uid)

    def _put(self, record: PodRecord) -> None:
        before = self._ledger.pod(record.ref.uid)
        if not self._ledger.set_pod(record):
            return
        self._waiting.settled(record.ref.uid)
        if record.problem:
            log.warning("node %s takes no pods, for pod %s: %s", record.node, record.ref, record.problem)
        if before is not None:
            self._freed(before.node)  # the peak of its init containers is over, or it was read anew
            self._ease(record.ref.namespace)

    def _gone(self, uid: str) -> None:
        self._waiting.settled(PodUid(uid))
        self._told_gone(PodUid(uid))
        record = self._ledger.pod(PodUid(uid))
        hold = self._ledger.reservation(PodUid(uid))
        if self._ledger.drop_pod(PodUid(uid)):
            for node in {one.node for one in (record, hold and hold.plan) if one}:
                self._freed(node)
            for ref in {one for one in (record and record.ref, hold and hold.plan.pod) if one}:
                self._ease(ref.namespace)

    def _release(self, uid: str) -> None:
        reservation = self._ledger.reservation(PodUid(uid))
        if reservation is not None:
            self._ledger.release(PodUid(uid))
            self._freed(reservation.plan.node)
            self._ease(reservation.plan.pod.namespace)

    def _ease(self, namespace: str) -> None:
        if self._ledger.quotas.limited(namespace):
            self._eased(namespace)
