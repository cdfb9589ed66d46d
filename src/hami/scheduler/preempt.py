"""/preempt: on which nodes evicting pods really makes room on the cards, and which more would have to go.

kube-scheduler picks victims without knowing cards, for want of CPU or memory (for want of cards it never
asks: see `evict`). Where its victims suffice they
are left as they are; where more of lower priority must go, they are added; where
nothing helps, the node is no candidate.
"""

from collections.abc import Sequence

from hami.model.ask import Ask
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.plan.preempt import Holder, victims
from hami.plan.snapshot import NodeState
from hami.scheduler.engine import Engine
from hami.wire import extender
from hami.wire.extender import MetaPod, MetaVictims


def answer(engine: Engine, body: bytes) -> bytes:
    """One /preempt call, body to body. Raises `Malformed`: this answer has no field for an error."""
    args = extender.decode_preempt(body)
    if args.pod is None:
        raise Malformed("$.Pod", None, "the pod to place")
    ask = engine.ask(args.pod)
    if engine.gate.closed:
        return extender.encode_preempt_result({})
    candidates = args.victims()
    if ask.empty:
        return extender.encode_preempt_result(candidates)
    ask = engine.ledger.within_quota(ask)
    enough = {node: with_cards(engine, ask, NodeName(node), chosen) for node, chosen in candidates.items()}
    # A node without a victim would be a fault to kube-scheduler, and the end of the whole attempt.
    return extender.encode_preempt_result(
        {node: chosen for node, chosen in enough.items() if chosen is not None and chosen.pods}
    )


def with_cards(engine: Engine, ask: Ask, node: NodeName, chosen: MetaVictims) -> MetaVictims | None:
    """The victims that make room on the node's cards too; None where there are none. Changes nothing."""
    state = engine.ledger.node(node)
    if state is None:
        return None
    pods = chosen.pods or []
    gone = {PodUid(pod.uid) for pod in pods}
    holders = holders_on(engine, node)
    more = victims(ask, without(state, holders, gone), [one for one in holders if one.pod.uid not in gone])
    if more is None:
        return None
    return MetaVictims([*pods, *(MetaPod(one.pod.uid) for one in more)], chosen.pdb_violations)


def holders_on(engine: Engine, node: NodeName) -> list[Holder]:
    """Who has slices on the node. A pod that is only being bound is nobody's victim yet."""
    return [Holder(pod.ref, pod.charges, pod.priority) for pod in engine.ledger.pods_on(node)]


def without(state: NodeState, holders: Sequence[Holder], gone: set[PodUid]) -> NodeState:
    """The node once the pods of these uids have left."""
    for holder in holders:
        if holder.pod.uid in gone:
            state = state.bearing(holder.charges, sign=-1)
    return state
