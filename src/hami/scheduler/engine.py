"""What every extender verb works with, and the one way a decision is made.

Decide and reserve happen in one call without an `await`, so two asks cannot
take the same slice. Verbs decode, call this, and encode; nothing else reserves.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hami.ledger.cluster import Ledger
from hami.model.ask import Ask, Policies
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.model.refusal import Reason, Refusal
from hami.model.reservation import Reservation, ReservationState
from hami.model.vendor import Vendor
from hami.plan.choose import Decision
from hami.plan.fleet.refusals import Refusals
from hami.scheduler.gate import Gate
from hami.scheduler.held import nominate
from hami.scheduler.held.gangs import Gangs
from hami.scheduler.held.narrate import Narrator
from hami.scheduler.held.nominate import Nominations
from hami.scheduler.held.phrases import Phrases
from hami.scheduler.held.waiting import Waiting
from hami.scheduler.meters import Meters
from hami.vendors.ask import ask_of, pod_ref
from hami.vendors.gang import gang_of
from hami.wire.annotations import NOMINATED
from hami.wire.objects import Pod, deleted_by

BESIDE = 8
"""Nodes on which room is being made that are looked at, at most, for what is left over there."""
CANDIDATES = 1000
"""Nodes kept for a refused pod that may preempt, at most."""


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
    leaving: dict[PodUid, float] = field(default_factory=dict)
    """Bound pods that are being deleted, and the unix second by which each should be gone."""
    nominations: Nominations = field(init=False)
    gangs: Gangs = field(init=False)
    gang_timeout: float = 20.0
    """Seconds a member waits in /bind for the rest of its gang; their slices are held for three times that."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nominations", Nominations(self.ledger, self.clock))
        gangs = Gangs(self.ledger, self.clock, 3 * self.gang_timeout, self.gang_timeout, self._alone)
        object.__setattr__(self, "gangs", gangs)

    def ask(self, pod: Pod) -> Ask:
        """The pod's ask. Raises `Malformed` with the path of what is wrong."""
        return ask_of(pod, self.vendors, self.policies)

    def decide(self, ask: Ask, names: Sequence[str] | None) -> Decision:
        """Choose among `names` and hold the slice; a pod that was refused gives up what it held."""
        reservation = self.ledger.reservation(ask.pod.uid)
        if reservation is not None and reservation.state is ReservationState.BINDING:
            return on_its_way(reservation, names)
        decision = self._gang(ask, names) if ask.gang is not None else self._alone(ask, names)
        offered = len(decision.feasible) + len(decision.refusals)
        if decision.plan is None:
            self.ledger.release(ask.pod.uid)
            self._refused(ask, decision, offered)
        else:
            if ask.gang is None:
                self.reserve(ask, decision.plan)
            self.nominations.drop(ask.pod.uid)
            self.waiting.settled(ask.pod.uid)
            self.meters.placed.inc()
            self.narrator.placed(ask.pod, decision, offered)
        return decision

    def _alone(self, ask: Ask, names: Sequence[str] | None) -> Decision:
        """The best node whose room is not being made for somebody more important; first the one where it was made for
        this pod: elsewhere it would take somebody else's."""
        made = self._where_room_was_made(ask, names)
        if made is not None:
            return made
        decision = self.ledger.decide(ask, names)
        if decision.plan is None or self.nominations.stands_against(ask, decision.plan) is None:
            return decision
        return self._elsewhere(ask, self.node_names() if names is None else names)

    def _elsewhere(self, ask: Ask, names: Sequence[str]) -> Decision:
        """Where no room is being made for somebody else; where nothing is left there, beside him, if both fit. Of a
        hundred for whom room is made not each costs a decision among all nodes."""
        made = self.nominations.against(ask)
        decision = self.ledger.decide(ask, [name for name in names if name not in made])
        taken = {name: nominate.refusal(made[NodeName(name)]) for name in names if name in made}
        if decision.plan is None:
            beside = [name for name in islice(taken, BESIDE) if self._leaves_room(ask, NodeName(name))]
            there = self.ledger.decide(ask, beside)
            decision = Decision(there.plan, there.feasible, decision.refusals)
            taken = {name: refusal for name, refusal in taken.items() if name not in beside}
        return Decision(decision.plan, decision.feasible, decision.refusals.beside(taken))

    def _leaves_room(self, ask: Ask, node: NodeName) -> bool:
        plan = self.fit(ask, node)
        return isinstance(plan, Plan) and self.nominations.stands_against(ask, plan) is None

    def _where_room_was_made(self, ask: Ask, names: Sequence[str] | None) -> Decision | None:
        own = self.nominations.of(ask.pod.uid)
        if own is None or (names is not None and own.node not in names):
            return None
        there = self.ledger.decide(ask, [own.node])
        if there.plan is None or self.nominations.stands_against(ask, there.plan):
            return None
        others = [name for name in (self.node_names() if names is None else names) if name != own.node]
        return Decision(there.plan, there.feasible, Refusals.alike(others, nominate.made_on(own.node)))

    def _gang(self, ask: Ask, names: Sequence[str] | None) -> Decision:
        assert ask.gang is not None
        return self.gangs.decide(ask, ask.gang, self.node_names() if names is None else names)

    def node_names(self) -> list[str]:
        return [state.name for state in self.ledger.nodes()]

    def see(self, pod: Pod) -> None:
        """The watch tells of a pod: it may belong to a gang, and room may be being made for it."""
        noted = (pod.metadata.annotations or {}).get(NOMINATED)
        if noted is not None and self.gate.closed:  # whoever decides knows better than the notes
            self._recall(pod, noted)
        if pod.spec.node_name and (gone_by := deleted_by(pod.metadata)) is not None:
            self.leaving[PodUid(pod.metadata.uid)] = gone_by
        gang = gang_of(pod.metadata)
        if gang is None:
            return
        if pod.spec.node_name:
            self.gangs.bound(PodUid(pod.metadata.uid), pod.metadata.namespace, gang.name)
            return
        with contextlib.suppress(Malformed):  # who cannot be read is refused when it is asked about
            ask = self.ask(pod)
            if not ask.empty and pod.metadata.deletion_timestamp is None:
                self.gangs.see(ask)

    def _recall(self, pod: Pod, noted: str) -> None:
        if pod.spec.node_name or pod.metadata.deletion_timestamp is not None:
            self.nominations.drop(PodUid(pod.metadata.uid))
            return
        with contextlib.suppress(Malformed):
            self.nominations.recall(self.ask(pod), noted)

    def _refused(self, ask: Ask, decision: Decision, offered: int) -> None:
        waiter = self.waiting.refused(ask, self.clock())
        waiter.offered = self._candidates(ask, decision.refusals.names)
        counts = self.phrases.tally(decision.refusals)
        waiter.held_back = held_back(counts, decision.refusals)
        self.meters.refused.inc()
        for reason, nodes in counts.items():
            self.meters.rejections.labels(reason).inc(nodes)
        self.narrator.refused(waiter, counts, lambda: self.phrases.reasons(decision.refusals), offered)

    def _candidates(self, ask: Ask, names: Sequence[str]) -> Sequence[NodeName]:
        """Nodes on which others may be evicted for `ask`; the ledger's own names, since thousands may wait."""
        if ask.priority <= 0 or not ask.preempts or ask.gang is not None:
            return ()
        found = (self.ledger.node(NodeName(name)) for name in islice(names, CANDIDATES))
        return tuple(state.name for state in found if state is not None)

    def unusable(self, pod: Pod, fault: str) -> None:
        """A pod whose ask cannot be read: no node is at fault."""
        self.meters.unusable.inc()
        self.narrator.unusable(pod_ref(pod), fault)

    def reserve(self, ask: Ask, plan: Plan) -> Reservation:
        return self.ledger.reserve(ask, plan, self.clock(), self.hold)

    def fit(self, ask: Ask, node: str) -> Plan | Refusal:
        """Whether the ask fits on one node, its own hold not counted against it."""
        return self.ledger.fit(ask, NodeName(node))


HELD_BACK = (Reason.GANG_INCOMPLETE, Reason.NOMINATED)


def held_back(words: Collection[str], refusals: Refusals) -> str:
    """The refusal that is of no card, where there is one. `words` has every reason there was."""
    for reason in HELD_BACK:
        if reason.value in words:
            return next(one.text for one in refusals.values() if one.reason is reason)
    return ""


def on_its_way(reservation: Reservation, names: Sequence[str] | None) -> Decision:
    """A pod whose Binding has an unknown fate may go to that node and to no other."""
    node = reservation.plan.node
    others = Refusal(counts=((Reason.BINDING_ELSEWHERE, 1),), total=0, detail=f"to {node}")
    return Decision(
        plan=reservation.plan,
        feasible=[node] if names is None or node in names else [],
        refusals=Refusals.alike([name for name in names or () if name != node], others),
    )
