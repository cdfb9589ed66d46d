"""The ledger: one writer for all that is taken, and the door for decisions about it.

Events from the API server come in by `set_node`, `drop_node`, `set_pod` and `drop_pod`, in any
order and as often as they like; `decide` and `reserve` happen without an await between them, so no two
asks get the same slice. A ledger told the same records again, in another order, is the same ledger.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from msgspec.structs import replace

from hami.ledger import heap
from hami.ledger.account import Account, Charges
from hami.ledger.index import Index
from hami.ledger.quota import QuotaRecord, Quotas
from hami.ledger.records import NodeRecord, PodRecord
from hami.ledger.recount import differences
from hami.ledger.view import ClusterView, NodeView
from hami.model.ask import Ask
from hami.model.card import MIG
from hami.model.errors import Bug, Conflict, StaleGeneration
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.model.reservation import Reservation, ReservationState
from hami.plan.choose import Decision, choose, choose_hosts, fit_as
from hami.plan.exact import quota, refuse
from hami.plan.exact.charge import parts_of
from hami.plan.fleet.refusals import Refusals
from hami.plan.pack import Worth
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps


class Ledger:
    """Times are seconds of one clock of the caller's choice; it must not go backwards."""

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

    # What is decided.

    def make_ready(self, spare: int | None = None) -> None:
        """Have memory for decisions, once the nodes are there: for a process that goes on deciding, and may still take
        `spare` bytes (None: as many as it likes)."""
        heap.make_ready(len(self._index.rows), spare)

    def look_ahead(self) -> None:
        """Between two decisions, for whoever has the time: what the next one would begin with. Changes no answer."""
        self._index.pack.look_ahead(self._index.columns)

    def decide(self, ask: Ask, names: Sequence[str] | None = None, *, asked: bool = True) -> Decision:
        """Choose for `ask` among `names` (all nodes: None) as if it held nothing yet. Changes nothing but what the
        policy `pack` knows of demand; without `asked` not that either: nobody asks this, somebody only wonders."""
        budgets = self.quotas.budgets(ask.pod.namespace, ask.pod.uid)
        if budgets and not ask.empty:
            refusal = quota.refuse(ask, budgets)
            if refusal is not None:
                return Decision(None, [], Refusals.alike(list(self._index.rows) if names is None else names, refusal))
            columns = self._index.columns
            if not quota.safe(ask, budgets, columns.largest, columns.any_mig):
                ask = quota.bounded(ask, budgets, columns.any_mig)
        if asked:
            self._index.pack.demand.see(ask)
        with self._without_hold(ask.pod.uid):
            return choose(ask, self._index, names)

    def fit(self, ask: Ask, name: NodeName) -> Plan | Refusal:
        """The plan on one node, card by card if refused, as if `ask` held nothing yet. Changes nothing."""
        ask = self.within_quota(ask)
        with self._without_hold(ask.pod.uid):
            row = self._index.rows.get(name)
            return refuse.UNKNOWN_NODE if row is None else fit_as(ask, self._index, row)

    def within_quota(self, ask: Ask) -> Ask:
        """`ask` with what its namespace may still spend, as if it held nothing: `exact.fit` then keeps to that too."""
        return quota.bounded(ask, self.quotas.budgets(ask.pod.namespace, ask.pod.uid), grown=True)

    def worth(self, ask: Ask, name: NodeName) -> Worth | None:
        """What the policy `pack` compares on one node, as if `ask` held nothing yet. None without room."""
        row = self._index.rows.get(name)
        with self._without_hold(ask.pod.uid):
            return None if row is None or ask.empty else self._index.pack.worth(ask, self._index.columns, row)

    def refit(self, ask: Ask) -> tuple[Plan | Refusal, Worth | None]:
        """A bound pod on its own node as if it were not there: the plan that would be made now, and what `pack`
        compares. Changes nothing. A refusal where pod or node has gone."""
        record = self._pods.get(ask.pod.uid)
        state = self._index.find(record.node) if record is not None else None
        if record is None or state is None:
            return refuse.UNKNOWN_NODE, None
        host = self._index.host_of(record.node)
        try:
            self._index.use(state.without(record.charges))
            self._index.host(record.node, host + ask.cpu_milli)
            return self.fit(ask, record.node), self.worth(ask, record.node)
        finally:
            self._index.use(state)
            self._index.host(record.node, host)

    def shelters(self, ask: Ask, names: Sequence[str]) -> list[NodeName]:
        """Those of `names` on which a pod without cards costs the cards least, as the policy `pack` sees it.
        Empty where nobody knows what pods ask. Changes nothing."""
        return choose_hosts(ask.cpu_milli, self._index, names)

    def shelter(self, ask: Ask, names: Sequence[str]) -> NodeName | None:
        """The first of `shelters` by name."""
        return min(self.shelters(ask, names), default=None)

    def judge_later(self) -> None:
        """From now on the policy `pack` goes by the prices it has, until the steps of `judge_anew` have been taken."""
        self._index.pack.patient = True

    def judge_anew(self) -> Steps[None]:
        """New prices where what is asked has moved: to be called again and again, its steps taken between decisions."""
        return self._index.pack.renew(self._index.columns)

    def reserve(self, ask: Ask, plan: Plan, now: float, ttl: float) -> Reservation:
        """Hold `plan` until `now + ttl` in place of what the pod held before.

        `StaleGeneration` if the node has changed since it was planned, `Conflict` if
        the pod is bound already or its Binding is on the way.
        """
        uid = plan.pod.uid
        hold = self._holds.get(uid)
        if uid in self._pods:
            raise Conflict(f"pod {plan.pod} is already bound to {self._pods[uid].node}")
        if hold is not None and hold.state is ReservationState.BINDING:
            raise Conflict(f"pod {plan.pod} is being bound to {hold.plan.node}; its fate is not known yet")
        state = self._index.find(plan.node)
        if state is None or state.generation != plan.generation:
            raise StaleGeneration(f"node {plan.node} has changed since {plan.pod} was planned on it; plan again")
        held_here = hold.plan.charges if hold is not None and hold.plan.node == plan.node else ()
        _must_hold(plan, state.without(held_here))
        reservation = Reservation(ask, plan, ReservationState.HELD, now + ttl)
        if hold is not None and hold.plan.node != plan.node:
            self._post(hold.plan.node, uid, None)
        self._holds[uid] = reservation
        self.quotas.spend(uid, plan.pod.namespace, quota.spent(parts_of(ask, plan.containers)))
        self._post(plan.node, uid, plan.charges)
        return reservation

    def binding(self, uid: PodUid, now: float, ttl: float) -> Reservation:
        """The Binding of a held plan goes out now. `Conflict` if nothing is held (any more)."""
        hold = self._holds.get(uid)
        if hold is None:
            raise Conflict(f"nothing is reserved for pod {uid}: the reservation has expired or was given back")
        hold = self._holds[uid] = replace(hold, state=ReservationState.BINDING, expires_at=now + ttl)
        return hold

    def release(self, uid: PodUid) -> Reservation | None:
        """Give a reservation back, whatever its state; the caller knows that it will not be bound."""
        hold = self._holds.pop(uid, None)
        if hold is not None:
            self.quotas.give_back(uid)
            self._post(hold.plan.node, uid, None)
        return hold

    def expire(self, now: float) -> list[Reservation]:
        """Give back what was held and not bound in time. What is being bound stays: see `overdue`."""
        due = self._due(now, ReservationState.HELD)
        for hold in due:
            self.release(hold.plan.pod.uid)
        return due

    def overdue(self, now: float) -> list[Reservation]:
        """Bindings whose fate should be known by now. Still charged: look the pod up at the API
        server, then `set_pod` or `release`."""
        return self._due(now, ReservationState.BINDING)

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

    @contextmanager
    def _without_hold(self, uid: PodUid) -> Iterator[None]:
        """Look at the cluster as if `uid` held nothing. A Binding on its way is no mere hold."""
        hold = self._holds.get(uid)
        state = self._index.find(hold.plan.node) if hold and hold.state is ReservationState.HELD else None
        if hold is None or state is None:
            yield
            return
        self._index.use(state.without(hold.plan.charges))
        try:
            yield
        finally:
            self._index.use(state)

    def _due(self, now: float, state: ReservationState) -> list[Reservation]:
        return [hold for hold in self._holds.values() if hold.state is state and hold.expires_at <= now]

    def _view(self, name: NodeName) -> NodeView:
        account = self._accounts[name]
        holds = tuple(self._holds[uid] for uid in sorted(account.holders) if uid in self._holds)
        return NodeView(name, self._index.find(name), tuple(self.pods_on(name)), holds)


def _must_hold(plan: Plan, state: NodeState) -> None:
    """No reservation ever takes a card above what it has."""
    used = {charge.card for charge in plan.charges}
    for card in state.bearing(plan.charges).cards:
        if card.card.id in used and card.card.mode == MIG:
            if not card.sound:
                raise Bug(f"the plan of {plan.pod} has no places of its own on card {card.card.id} of {plan.node}")
        elif card.card.id in used and min(card.free_slots, card.free_mem_mib, card.free_core_percent) < 0:
            raise Bug(f"the plan of {plan.pod} takes more of card {card.card.id} on {plan.node} than is left")
