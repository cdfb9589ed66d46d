"""The ledger: one writer for all that is taken (`books`), and the door for decisions about it.

`decide` and `reserve` happen without an await between them, so no two asks get the same slice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from hami.ledger import heap
from hami.ledger.books import Books
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


class Ledger(Books):
    """Times are seconds of one clock of the caller's choice; it must not go backwards."""

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


def _must_hold(plan: Plan, state: NodeState) -> None:
    """No reservation ever takes a card above what it has."""
    used = {charge.card for charge in plan.charges}
    for card in state.bearing(plan.charges).cards:
        if card.card.id in used and card.card.mode == MIG:
            if not card.sound:
                raise Bug(f"the plan of {plan.pod} has no places of its own on card {card.card.id} of {plan.node}")
        elif card.card.id in used and min(card.free_slots, card.free_mem_mib, card.free_core_percent) < 0:
            raise Bug(f"the plan of {plan.pod} takes more of card {card.card.id} on {plan.node} than is left")
