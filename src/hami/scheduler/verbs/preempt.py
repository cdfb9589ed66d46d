"""/preempt: on which nodes evicting pods really makes room on the cards, and which more would have to go.

kube-scheduler picks victims without knowing cards, for want of CPU or memory (for want of cards it never
asks: see `evict`). Where its victims suffice they
are left as they are; where more of lower priority must go, they are added; where
nothing helps, the node is no candidate.
"""

from collections.abc import Callable, Mapping, Sequence

from hami.model.ask import Ask
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.plan.exact.preempt import Holder, searching
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps
from hami.scheduler.engine import Engine
from hami.scheduler.loop.shares import Shares
from hami.scheduler.loop.unhurried import unhurried
from hami.wire import extender
from hami.wire.extender import MetaPod, MetaVictims

SECONDS = 1.0
"""For all nodes of a call: the search on one ends after its share of them with what it has, and when they have passed
no further node is looked at, unless none was found yet."""


async def answer(engine: Engine, body: bytes) -> bytes:
    """One /preempt call, body to body. Raises `Malformed`: this answer has no field for an error.

    There may be a hundred nodes of a tenth of a second each, and kube-scheduler waits: after `SECONDS` it gets what
    there is. Whoever else knocks comes in after a millisecond.
    """
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
    return extender.encode_preempt_result(await unhurried(_enough(engine, ask, candidates), pause=0))


def _enough(engine: Engine, ask: Ask, candidates: Mapping[str, MetaVictims]) -> Steps[dict[str, MetaVictims]]:
    found: dict[str, MetaVictims] = {}
    shares = Shares(engine.clock, SECONDS, len(candidates))
    for node, chosen in candidates.items():
        yield
        if found and shares.over:
            break
        more = yield from with_cards(engine, ask, NodeName(node), chosen, shares.next())
        if more is not None and more.pods:  # a node without a victim would be a fault, and the end of the attempt
            found[node] = more
    return found


def with_cards(
    engine: Engine, ask: Ask, node: NodeName, chosen: MetaVictims, enough: Callable[[], bool]
) -> Steps[MetaVictims | None]:
    """The victims that make room on the node's cards too; None where there are none. Nothing cheaper is looked for once
    there was time `enough`. Changes nothing."""
    state = engine.ledger.node(node)
    if state is None:
        return None
    pods = chosen.pods or []
    gone = {PodUid(pod.uid) for pod in pods}
    holders = holders_on(engine, node)
    left = [one for one in holders if one.pod.uid not in gone]
    more = yield from searching(ask, without(state, holders, gone), left, enough=enough)
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
            state = state.without(holder.charges)
    return state
