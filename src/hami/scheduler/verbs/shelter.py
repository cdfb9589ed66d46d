"""/shelter: a prioritize verb for pods without cards, where `hami scheduler config --cpu-pods` set kube-scheduler up to
ask: ten points for the nodes on which the pod's CPU is least missed by the cards, as the node policy `pack` sees it.

Of nodes that are equal to `pack` kube-scheduler's own scores choose. A pod with cards has its points from
/prioritize, and gets none here; nothing is held, and whoever gets no answer places the pod as ever.
"""

from collections.abc import Sequence

from hami.model.ask import NodePolicy
from hami.model.errors import Malformed
from hami.scheduler.engine import Engine
from hami.scheduler.verbs.asked import asked
from hami.scheduler.verbs.prioritize import MOST
from hami.wire import extender


def answer(engine: Engine, body: bytes) -> bytes:
    """One /shelter call, body to body. Raises `Malformed`: this answer has no field for an error."""
    args = extender.decode_filter(body)
    if args.pod is None:
        raise Malformed("$.Pod", None, "the pod to place")
    names = asked(args)
    best = [] if engine.gate.closed else sheltering(engine, args, names)
    return extender.encode_priorities([extender.HostPriority(name, MOST) for name in best])


def sheltering(engine: Engine, args: extender.FilterArgs, names: Sequence[str]) -> list[str]:
    """The best of `names`; empty where all are alike, or the cards have no say."""
    assert args.pod is not None
    ask = engine.ask(args.pod)
    if not ask.empty or ask.node_policy is not NodePolicy.PACK:
        return []
    best = engine.ledger.shelters(ask, names)
    return [] if len(best) == len(names) else list(best)
