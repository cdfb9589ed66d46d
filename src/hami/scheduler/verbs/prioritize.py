"""/prioritize: ten points for the node whose slice is held, none for the others.

kube-scheduler weighs them above its own scores, so the pod goes where its slice
waits unless something of more weight, which only the operator can set, speaks.
It adds what is listed to its own scores; so a node with no points is left out,
which spares it hundreds of entries a pod.
"""

from collections.abc import Sequence

from hami.model.errors import Malformed
from hami.model.ids import PodUid
from hami.scheduler.engine import Engine
from hami.scheduler.verbs.asked import asked
from hami.wire import extender

MOST = 10
"""kube-scheduler's MaxExtenderPriority."""


def answer(engine: Engine, body: bytes) -> bytes:
    """One /prioritize call, body to body. Raises `Malformed`: this answer has no field for an error."""
    args = extender.decode_filter(body)
    if args.pod is None:
        raise Malformed("$.Pod", None, "the pod to place")
    names = asked(args)
    best = None if engine.gate.closed else chosen(engine, args, names)
    return extender.encode_priorities([] if best is None else [extender.HostPriority(best, MOST)])


def chosen(engine: Engine, args: extender.FilterArgs, names: Sequence[str]) -> str | None:
    """The node that holds the pod's slice; decided anew when that is none of `names`."""
    assert args.pod is not None
    reservation = engine.ledger.reservation(PodUid(args.pod.metadata.uid))
    if reservation is not None and reservation.plan.node in names:
        return reservation.plan.node
    ask = engine.ask(args.pod)
    if ask.empty:
        return None
    plan = engine.decide(ask, names).plan
    return plan.node if plan is not None else None
