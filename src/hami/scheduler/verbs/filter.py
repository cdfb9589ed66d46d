"""/filter: which of the nodes kube-scheduler offers can take the pod, and why not the others.

All feasible nodes go back, so that kube-scheduler's own scores and preemption
keep their meaning; the slice on the best one is held for the bind to come.
"""

from hami.model.errors import Malformed
from hami.scheduler.engine import Engine
from hami.scheduler.verbs.asked import answered, asked, told
from hami.wire import extender


def answer(engine: Engine, body: bytes) -> bytes:
    """One /filter call, body to body. What goes wrong is said in ``Error``."""
    try:
        args = extender.decode_filter(body)
        if args.pod is None:
            return extender.encode_filter_error("extender args missing pod")
        names = asked(args)
    except Malformed as fault:
        return extender.encode_filter_error(str(fault))
    if engine.gate.closed:
        return extender.encode_filter_error(engine.gate.closed)
    try:
        ask = engine.ask(args.pod)
    except Malformed as fault:
        engine.unusable(args.pod, str(fault))
        return extender.encode_filter_result(args, [], {}, dict.fromkeys(names, str(fault)))
    if ask.empty:
        return extender.encode_filter_result(args, answered(names), {}, {})
    decision = engine.decide(ask, names)
    curable, lasting = engine.phrases.spoken(decision.refusals)
    return extender.encode_filter_result(args, answered(decision.feasible), told(curable), told(lasting))
