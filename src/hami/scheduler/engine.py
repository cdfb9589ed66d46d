"""What every extender verb works with, and the one way a decision is made.

Decide and reserve happen in one call without an `await`, so two asks cannot
take the same slice. Verbs decode, call this, and encode; nothing else reserves.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hami.ledger.cluster import Ledger
from hami.model.ask import Ask, Policies
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.model.refusal import Reason, Refusal
from hami.model.reservation import Reservation, ReservationState
from hami.model.vendor import Vendor
from hami.plan.choose import Decision
from hami.plan.refusals import Refusals
from hami.scheduler.gate import Gate
from hami.scheduler.meters import Meters
from hami.scheduler.narrate import Narrator
from hami.scheduler.phrases import Phrases
from hami.scheduler.waiting import Waiting
from hami.vendors.ask import ask_of, pod_ref
from hami.wire.objects import Pod


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts of one deciding replica. `clock` is monotonic seconds."""

    ledger: Ledger
    vendors: tuple[Vendor, ...]
    policies: Policies
    gate: Gate
    waiting: Waiting
    meters: Meters
    narrator: Narrator
    clock: Callable[[], float]
    hold: float
    """Seconds a decision waits for its bind."""
    phrases: Phrases = field(default_factory=Phrases)

    def ask(self, pod: Pod) -> Ask:
        """The pod's ask. Raises `Malformed` with the path of what is wrong."""
        return ask_of(pod, self.vendors, self.policies)

    def decide(self, ask: Ask, names: Sequence[str] | None) -> Decision:
        """Choose among `names` and hold the slice; a pod that was refused gives up what it held."""
        reservation = self.ledger.reservation(ask.pod.uid)
        if reservation is not None and reservation.state is ReservationState.BINDING:
            return on_its_way(reservation, names)
        decision = self.ledger.decide(ask, names)
        offered = len(decision.feasible) + len(decision.refusals)
        if decision.plan is None:
            self.ledger.release(ask.pod.uid)
            self._refused(ask, decision, offered)
        else:
            self.reserve(ask, decision.plan)
            self.waiting.settled(ask.pod.uid)
            self.meters.placed.inc()
            self.narrator.placed(ask.pod, decision, offered)
        return decision

    def _refused(self, ask: Ask, decision: Decision, offered: int) -> None:
        waiter = self.waiting.refused(ask, self.clock())
        reasons = self.phrases.reasons(decision.refusals)
        self.meters.refused.inc()
        for reason, count in Counter(reasons.values()).items():
            self.meters.rejections.labels(reason).inc(count)
        self.narrator.refused(waiter, reasons, offered)

    def unusable(self, pod: Pod, fault: str) -> None:
        """A pod whose ask cannot be read: no node is at fault."""
        self.meters.unusable.inc()
        self.narrator.unusable(pod_ref(pod), fault)

    def reserve(self, ask: Ask, plan: Plan) -> Reservation:
        return self.ledger.reserve(ask, plan, self.clock(), self.hold)

    def fit(self, ask: Ask, node: str) -> Plan | Refusal:
        """Whether the ask fits on one node, its own hold not counted against it."""
        return self.ledger.fit(ask, NodeName(node))


def on_its_way(reservation: Reservation, names: Sequence[str] | None) -> Decision:
    """A pod whose Binding has an unknown fate may go to that node and to no other."""
    node = reservation.plan.node
    others = Refusal(counts=((Reason.BINDING_ELSEWHERE, 1),), total=0, detail=f"to {node}")
    return Decision(
        plan=reservation.plan,
        feasible=[node] if names is None or node in names else [],
        refusals=Refusals.of({name: others for name in names or () if name != node}),
    )
