"""/preempt: on which nodes evicting the named pods really makes room on the cards.

kube-scheduler picks victims without knowing cards; we keep the nodes where the
pod would fit once its victims are gone, victims unchanged, and drop the others.
"""

from collections.abc import Iterable

from hami.model.ask import Ask
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Charge, Plan
from hami.plan.fit import fit
from hami.scheduler.engine import Engine
from hami.wire import extender


def answer(engine: Engine, body: bytes) -> bytes:
    """One /preempt call, body to body. Raises `Malformed`: this answer has no field for an error."""
    args = extender.decode_preempt(body)
    if args.pod is None:
        raise Malformed("$.Pod", None, "the pod to place")
    ask = engine.ask(args.pod)
    victims = args.victims()
    if engine.gate.closed:
        return extender.encode_preempt_result({})
    if ask.empty:
        return extender.encode_preempt_result(victims)
    return extender.encode_preempt_result(
        {
            node: chosen
            for node, chosen in victims.items()
            if makes_room(engine, ask, node, (pod.uid for pod in chosen.pods or ()))
        }
    )


def makes_room(engine: Engine, ask: Ask, node: str, victims: Iterable[str]) -> bool:
    """Whether `ask` fits on `node` without the pods of these uids. Changes nothing."""
    state = engine.ledger.node(NodeName(node))
    if state is None:
        return False
    for uid in victims:
        state = state.bearing(charges_of(engine, PodUid(uid), node), sign=-1)
    return isinstance(fit(ask, state), Plan)


def charges_of(engine: Engine, uid: PodUid, node: str) -> tuple[Charge, ...]:
    """What a pod takes on `node`, bound or reserved; nothing for one without cards there."""
    record = engine.ledger.pod(uid)
    if record is not None:
        return record.charges if record.node == node else ()
    reservation = engine.ledger.reservation(uid)
    return reservation.plan.charges if reservation is not None and reservation.plan.node == node else ()
