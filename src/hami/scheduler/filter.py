"""/filter: which of the nodes kube-scheduler offers can take the pod, and why not the others.

All feasible nodes go back, so that kube-scheduler's own scores and preemption
keep their meaning; the slice on the best one is held for the bind to come.
"""

from collections.abc import Mapping, Sequence

from hami.model.errors import Malformed
from hami.model.refusal import Reason, Refusal
from hami.scheduler.engine import Engine
from hami.scheduler.narrate import distinct
from hami.wire import extender

LASTING = frozenset(
    {
        Reason.NOT_HEALTHY,
        Reason.CORDONED,
        Reason.TYPE_MISMATCH,
        Reason.UUID_MISMATCH,
        Reason.INSUFFICIENT_CARDS,
        Reason.NO_SUCH_FAMILY,
        Reason.UNREGISTERED,
    }
)
"""Reasons that no preemption can cure: kube-scheduler is spared its dry run on those nodes."""

SPOKEN = 20
"""Up to this many different texts go out in full. kube-scheduler joins all of them into the pod's
condition, so on a large cluster the quantities would drown the reasons."""


def answer(engine: Engine, body: bytes) -> bytes:
    """One /filter call, body to body. What goes wrong is said in ``Error``."""
    try:
        args = extender.decode_filter(body)
        if args.pod is None:
            return extender.encode_filter_error("extender args missing pod")
        names = args.names()
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
        return extender.encode_filter_result(args, names, {}, {})
    decision = engine.decide(ask, names)
    failed, unresolvable = spoken(decision.refusals)
    return extender.encode_filter_result(args, decision.feasible, failed, unresolvable)


def spoken(refusals: Mapping[str, Refusal]) -> tuple[dict[str, str], dict[str, str]]:
    """Refusals as texts: those that preemption might cure, and those it cannot."""
    kinds = list(distinct(refusals))
    brief = len(kinds) > SPOKEN and len({refusal.text for refusal in kinds}) > SPOKEN
    texts = {id(refusal): (brief_text(refusal) if brief else refusal.text) for refusal in kinds}
    lasting = {id(refusal) for refusal in kinds if all(reason in LASTING for reason, _ in refusal.counts)}
    failed: dict[str, str] = {}
    unresolvable: dict[str, str] = {}
    for name, refusal in refusals.items():
        key = id(refusal)
        (unresolvable if key in lasting else failed)[name] = texts[key]
    return failed, unresolvable


def brief_text(refusal: Refusal) -> str:
    """The reasons without the quantities, of which there are few on any cluster."""
    parts: Sequence[str] = [
        f"{count}/{refusal.total} {reason.value}" if refusal.total else reason.value for reason, count in refusal.counts
    ]
    return ", ".join(sorted(parts))
