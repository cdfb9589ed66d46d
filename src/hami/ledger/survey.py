"""An ask against the whole cluster, explained: where it fits, why not elsewhere, and the nearest change that helps.

The decision is `Ledger.decide` itself; the nodes that matter most are then looked at closely (`plan.advice.explain`),
step by step, so that a scheduler can serve others meanwhile. Changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.model.ask import Ask, NodePolicy, PodRef
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan.advice.distance import distance
from hami.plan.advice.explain import Explanation, explaining
from hami.plan.advice.fixes import EFFORT, Change, Fix
from hami.plan.advice.residents import Resident, elsewhere, stand_in
from hami.plan.exact.preempt import Holder
from hami.plan.exact.wants import wants
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps
from hami.plan.words import spoken

CLOSELY = 16
"""Nodes looked at closely unless told otherwise."""
NAMED = 10
"""Node names told for each reason, and fixes told in all."""

AskOf = Callable[[PodRef], Ask | None]
"""What a bound pod asks, where that is known."""


class Refused(Struct, frozen=True):
    """Nodes that are out for the same reason, in the same words."""

    text: str
    nodes: int
    names: tuple[str, ...]
    """The first `NAMED`, sorted."""


class Survey(Struct, frozen=True, omit_defaults=True):
    """One ask and the cluster (docs/reference/explain.md)."""

    pod: PodRef
    asks: tuple[str, ...]
    """Each container's share in words."""
    fits: bool
    offered: int
    """Nodes that were asked about."""
    feasible: int
    plan: Plan | None = None
    """On the node that would be chosen."""
    refused: tuple[Refused, ...] = ()
    """The most frequent reason first."""
    nodes: tuple[Explanation, ...] = ()
    """Looked at closely: the chosen node and the fullest others that fit, then those that come nearest to fitting."""
    fixes: tuple[Fix, ...] = ()
    """The nearest first, over the nodes looked at. Empty where it fits."""
    bound: NodeName | None = None
    """Where the pod is already; the survey is then of this node alone, as if the pod were not there."""

    @property
    def nearest(self) -> Fix | None:
        return self.fixes[0] if self.fixes else None


def survey(ledger: Ledger, ask: Ask, *, closely: int = CLOSELY, ask_of: AskOf = lambda _: None) -> Steps[Survey]:
    """Explain `ask`. Each step is one trial on one node."""
    record = ledger.pod(ask.pod.uid) if ask.pod.uid else None
    if record is not None:
        return (yield from _of_bound(ledger, ask, record.node))
    decision = ledger.decide(ask, asked=False)
    yield
    ask = ledger.within_quota(ask)
    looked: list[Explanation] = []
    fixes: list[Fix] = []
    for state in _fitting(ledger, ask, decision.plan, decision.feasible)[:closely]:
        found = yield from explaining(ask, state)
        plan = ledger.fit(ask, state.name)  # the decision's own: a node policy may prefer other cards than the pod's
        worth = ledger.worth(ask, state.name) if ask.node_policy is NodePolicy.PACK else None
        looked.append(replace(found, plan=plan, pack=worth) if isinstance(plan, Plan) else found)
    if decision.plan is None:
        nearest = yield from _nearest(ledger, ask, list(decision.refusals))
        for state in nearest[:closely]:
            residents = residents_on(ledger, state.name, ask_of)
            found = yield from explaining(ask, state, [_holder(one) for one in residents])
            looked.append(found)
            fixes += (replace(fix, node=state.name) for fix in found.fixes)
        fixes = yield from _resolved(ledger, fixes, ask_of)
    refused = yield from grouped(decision.refusals)
    return Survey(
        pod=ask.pod,
        asks=said(ask),
        fits=decision.plan is not None,
        offered=len(decision.feasible) + len(decision.refusals),
        feasible=len(decision.feasible),
        plan=decision.plan,
        refused=refused,
        nodes=tuple(looked),
        fixes=tuple(fixes),
    )


def with_asks(ledger: Ledger, found: Survey, ask_of: AskOf) -> Steps[Survey]:
    """The same once it is known what the pods that it would move ask: a place has to accept their types and more."""
    fixes = [fix for fix in found.fixes if fix.change is not Change.MOVE_POD]
    for fix in found.fixes:
        if fix.change is Change.MOVE_POD:
            judged = yield from _moved_or_ended(ledger, fix, ask_of)
            fixes.append(judged)
    return replace(found, fixes=tuple(sorted(fixes)))


def residents_on(ledger: Ledger, name: NodeName, ask_of: AskOf) -> list[Resident]:
    """Who holds what on a node; a pod whose record cannot be read is left out."""
    return [
        Resident(one.ref, name, one.charges, ask_of(one.ref) or stand_in(one.ref, one.containers))
        for one in ledger.pods_on(name)
        if one.problem is None and one.charges
    ]


def said(ask: Ask) -> tuple[str, ...]:
    return tuple(f"{ask.containers[want.container].name}: {spoken(want.ask)}" for want in wants(ask))


def grouped(refusals: Mapping[str, Refusal]) -> Steps[tuple[Refused, ...]]:
    """Nodes by what is said of them, a node a step."""
    names: dict[str, list[str]] = {}
    for name, refusal in refusals.items():
        yield
        names.setdefault(refusal.text, []).append(name)
    ordered = sorted(names.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return tuple(Refused(text, len(told), tuple(sorted(told)[:NAMED])) for text, told in ordered)


def _of_bound(ledger: Ledger, ask: Ask, name: NodeName) -> Steps[Survey]:
    """A pod that has its cards: what its node looked like without it."""
    state, record = ledger.node(name), ledger.pod(ask.pod.uid)
    if state is None or record is None:
        return Survey(ask.pod, said(ask), False, 0, 0, bound=name)
    found = yield from explaining(ask, state.without(record.charges))
    fits = found.plan is not None
    if fits and ask.node_policy is NodePolicy.PACK:
        plan, worth = ledger.refit(ask)
        found = replace(found, plan=plan if isinstance(plan, Plan) else found.plan, pack=worth)
    refused = () if fits else (Refused(found.refusal or "", 1, (name,)),)
    return Survey(ask.pod, said(ask), fits, 1, int(fits), found.plan, refused, (found,), found.fixes, bound=name)


def _fitting(ledger: Ledger, ask: Ask, plan: Plan | None, feasible: Sequence[str]) -> list[NodeState]:
    """Nodes that fit: the chosen one, then by name."""
    names = [str(plan.node)] if plan else []
    names += [name for name in sorted(feasible) if name not in names]
    states = (_without_own(ledger, ask, NodeName(name)) for name in names[: 4 * NAMED])
    return [state for state in states if state is not None]


def _without_own(ledger: Ledger, ask: Ask, name: NodeName) -> NodeState | None:
    """The node as the decision saw it: a slice held for the asker itself is free."""
    state, hold = ledger.node(name), ledger.reservation(ask.pod.uid)
    if state is not None and hold is not None and hold.plan.node == name:
        return state.without(hold.plan.charges)
    return state


def _nearest(ledger: Ledger, ask: Ask, names: Sequence[str]) -> Steps[list[NodeState]]:
    """Refused nodes by how far they are from fitting; of nodes that are alike, one."""
    ranked: dict[object, tuple[float, str, NodeState]] = {}
    for name in names:
        state = _without_own(ledger, ask, NodeName(name))
        if state is not None:
            yield
            alike = (state.problem, tuple((*_kind(one), one.use, one.cordoned, one.instances) for one in state.cards))
            entry = (distance(ask, state), name, state)
            if alike not in ranked or entry[:2] < ranked[alike][:2]:
                ranked[alike] = entry
    return [state for _, _, state in sorted(ranked.values(), key=lambda entry: entry[:2])]


def _kind(state: CardState) -> tuple[object, ...]:
    card = state.card
    return card.family, card.model, card.mem_mib, card.core_percent, card.slots, card.numa, card.mode, card.healthy


def _holder(one: Resident) -> Holder:
    return Holder(one.pod, one.charges, 0)


def _resolved(ledger: Ledger, fixes: list[Fix], ask_of: AskOf) -> Steps[list[Fix]]:
    """The nearest fixes; a pod that no other node would take has to end, not to move."""
    told: list[Fix] = []
    seen: set[tuple[object, ...]] = set()
    for fix in sorted(fixes):
        if (key := (fix.change, fix.value, fix.cores, fix.card, fix.pod, fix.model)) in seen:
            continue
        seen.add(key)
        told.append((yield from _moved_or_ended(ledger, fix, ask_of)) if fix.change is Change.MOVE_POD else fix)
        if len(told) == NAMED:
            break
    return sorted(told)


def _moved_or_ended(ledger: Ledger, fix: Fix, ask_of: AskOf) -> Steps[Fix]:
    assert fix.node is not None
    assert fix.pod is not None
    resident = next((one for one in residents_on(ledger, fix.node, ask_of) if one.pod == fix.pod), None)
    target = None
    if resident is not None:
        target = yield from elsewhere(resident, list(ledger.nodes()))
    if target is not None:
        return replace(fix, text=f"move pod {fix.pod} to {target}")
    effort = fix.effort + EFFORT[Change.END_POD] - EFFORT[Change.MOVE_POD]
    return replace(fix, change=Change.END_POD, text=f"end pod {fix.pod}: no other node has room for it", effort=effort)
