"""The books of a ledger: what is true of nodes, pods, reservations and quotas, and everything derived from it.

Events from the API server come in by `set_node`, `drop_node`, `set_pod` and `drop_pod`, in any order and as often as
they like; books told the same records again, in another order, are the same books. A holder's share changes in one
place (`_post`). Nothing is decided here (`cluster`).
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec.structs import replace

from hami.ledger.account import Account, Charges
from hami.ledger.index import Index
from hami.ledger.quota import QuotaRecord, Quotas
from hami.ledger.records import NodeRecord, PodRecord
from hami.ledger.recount import differences
from hami.ledger.view import ClusterView, NodeView
from hami.model.ids import NodeName, PodUid
from hami.model.reservation import Reservation
from hami.plan.exact import quota
from hami.plan.exact.charge import parts_of
from hami.plan.snapshot import NodeState


class Books:
    """All that is taken, by whom, and what is left."""

    def __init__(self) -> None:
        self._index = Index()
        self._accounts: dict[NodeName, Account] = {}
        self._pods: dict[PodUid, PodRecord] = {}
        self._holds: dict[PodUid, Reservation] = {}
        self._generation = 0
        self.quotas = Quotas()
        """What namespaces may spend and have spent, to look at; `set_quota` and `drop_quota` change it."""

    # What is true: events from the API server. Each says whether anything changed.

    def set_node(self, record: NodeRecord) -> bool:
        """A node registered, or registered anew."""
        account = self._account(record.name)
        if account.record == record:
            return False
        account.record = record
        self._restate(account)
        return True

    def drop_node(self, name: NodeName) -> bool:
        """A node has gone. Its pods and reservations are kept, and charged again if it returns."""
        account = self._accounts.get(name)
        if account is None or account.record is None:
            return False
        account.record = None
        self._index.drop(name)
        self._forget_idle(account)
        return True

    def set_host(self, name: NodeName, free_cpu_milli: float, whole: float | None = None) -> None:
        """What is left of a registered node's CPU, and of how much (None: of as much as before); only the policy
        `pack` looks at it."""
        if name in self._index.rows:
            self._index.host(name, free_cpu_milli, whole)

    def set_pod(self, record: PodRecord) -> bool:
        """A pod is bound and not finished. Ends any reservation of that uid, wherever it was."""
        uid = record.ref.uid
        before = self._pods.get(uid)
        if before == record:
            return False
        hold = self._holds.pop(uid, None)
        for node in {hold.plan.node if hold else record.node, before.node if before else record.node} - {record.node}:
            self._post(node, uid, None)
        self._pods[uid] = record
        self._index.pack.demand.see_running(uid, record.containers)
        self.quotas.spend(uid, record.ref.namespace, record.spent)
        self._post(record.node, uid, record.charges, record.problem and f"pod {record.ref}: {record.problem}")
        return True

    def drop_pod(self, uid: PodUid) -> bool:
        """A pod is finished or deleted. A reservation of that uid ends with it."""
        record = self._pods.pop(uid, None)
        if record is not None:
            self._index.pack.demand.leave(uid)
            self.quotas.give_back(uid)
            self._post(record.node, uid, None)
        return self.release(uid) is not None or record is not None

    def set_quota(self, record: QuotaRecord) -> bool:
        """A ResourceQuota is new or has changed."""
        return self.quotas.set(record)

    def drop_quota(self, namespace: str, name: str) -> bool:
        """A ResourceQuota is gone."""
        return self.quotas.drop(namespace, name)

    def release(self, uid: PodUid) -> Reservation | None:
        """Give a reservation back, whatever its state; the caller knows that it will not be bound."""
        hold = self._holds.pop(uid, None)
        if hold is not None:
            self.quotas.give_back(uid)
            self._post(hold.plan.node, uid, None)
        return hold

    # What there is to see.

    def reservation(self, uid: PodUid) -> Reservation | None:
        return self._holds.get(uid)

    def reservations(self) -> Iterable[Reservation]:
        return self._holds.values()

    def node(self, name: NodeName) -> NodeState | None:
        """A registered node as it is now."""
        return self._index.find(name)

    def nodes(self) -> Iterable[NodeState]:
        """All registered nodes."""
        return self._index.states()

    def pod(self, uid: PodUid) -> PodRecord | None:
        return self._pods.get(uid)

    def pods(self) -> Mapping[PodUid, PodRecord]:
        """All bound pods, a live view."""
        return MappingProxyType(self._pods)

    def pods_on(self, name: NodeName) -> list[PodRecord]:
        """Bound pods of one node, sorted by uid."""
        account = self._accounts.get(name)
        uids = {*account.holders, *account.troubles} if account else ()
        return [self._pods[uid] for uid in sorted(uids) if uid in self._pods]

    def view(self) -> ClusterView:
        """Everything at this moment. Costs about a microsecond a pod: not for every request."""
        return ClusterView(tuple(self._view(name) for name in sorted(self._accounts)))

    def recount(self) -> list[str]:
        """Differences between the records and everything derived from them; must be empty."""
        due = {uid: (record.ref.namespace, record.spent) for uid, record in self._pods.items()}
        for uid, hold in self._holds.items():
            due[uid] = (hold.plan.pod.namespace, quota.spent(parts_of(hold.ask, hold.plan.containers)))
        return [
            *differences(self._accounts, self._pods, self._holds, self._index),
            *self.quotas.differences(due),
        ]

    # How it is changed.

    def _account(self, name: NodeName) -> Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(name)
        return account

    def _forget_idle(self, account: Account) -> None:
        if account.idle:
            del self._accounts[account.name]

    def _next(self) -> int:
        """Generations never repeat, not even when a node comes back."""
        self._generation += 1
        return self._generation

    def _restate(self, account: Account) -> None:
        """Work a node's state out anew."""
        state = account.state(self._next())
        if state is not None:
            self._index.put(state)

    def _post(self, name: NodeName, uid: PodUid, charges: Charges | None, trouble: str | None = None) -> None:
        """The one place where a holder's share changes: account, state and columns together."""
        account = self._account(name)
        before = account.holders.pop(uid, ())
        trouble_before = account.troubles.pop(uid, None)
        if charges is not None:
            account.holders[uid] = charges
        if trouble is not None:
            account.troubles[uid] = trouble
        if trouble != trouble_before:
            self._restate(account)
        elif before != (charges or ()):
            self._recharge(account, before, charges or ())
        self._forget_idle(account)

    def _recharge(self, account: Account, before: Charges, after: Charges) -> None:
        state = self._index.find(account.name)
        if state is not None:
            state = state.without(before) if before else state
            state = state.bearing(after) if after else state
            self._index.use(replace(state, generation=self._next()))

    def _view(self, name: NodeName) -> NodeView:
        account = self._accounts[name]
        holds = tuple(self._holds[uid] for uid in sorted(account.holders) if uid in self._holds)
        return NodeView(name, self._index.find(name), tuple(self.pods_on(name)), holds)
