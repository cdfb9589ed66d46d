"""Which handler answers which path, who may call it, and how large its body may be.

Handlers are functions from bytes to bytes; this table and `serve` are all that
knows HTTP. Nothing here decides anything.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hami import __version__
from hami.scheduler.engine import Engine
from hami.scheduler.verbs import filter as filtering
from hami.scheduler.verbs import preempt, prioritize, shelter
from hami.scheduler.verbs.bind import Binder
from hami.wire import extender

MIB = 1 << 20

Handler = Callable[[bytes], bytes | Awaitable[bytes]]
Fault = Callable[[str], bytes]
"""Makes the answer that says a fault in the verb's own form."""


@dataclass(frozen=True, slots=True)
class Route:
    """One verb. `guarded` verbs want kube-scheduler's certificate."""

    verb: str
    handler: Handler
    limit: int
    """Bytes of body."""
    guarded: bool = False
    fault: Fault | None = None
    """None where the protocol has no field for an error: the status says it."""


def extender_routes(engine: Engine, binder: Binder, max_body: int) -> dict[tuple[str, str], Route]:
    """kube-scheduler's verbs."""
    return {
        ("POST", "/filter"): Route(
            "filter",
            lambda body: filtering.answer(engine, body),
            max_body,
            guarded=True,
            fault=extender.encode_filter_error,
        ),
        ("POST", "/prioritize"): Route(
            "prioritize", lambda body: prioritize.answer(engine, body), max_body, guarded=True
        ),
        ("POST", "/shelter"): Route("shelter", lambda body: shelter.answer(engine, body), max_body, guarded=True),
        ("POST", "/bind"): Route("bind", binder.answer, MIB, guarded=True, fault=extender.encode_bind_result),
        ("POST", "/preempt"): Route("preempt", lambda body: preempt.answer(engine, body), max_body, guarded=True),
    }


def open_routes(review: Callable[[bytes], bytes], max_review: int) -> dict[tuple[str, str], Route]:
    """Verbs anybody may call: admission, which changes nothing here, and facts about the process."""
    version = b'{"version":"' + __version__.encode() + b'"}'
    return {
        ("POST", "/webhook"): Route("webhook", review, max_review),
        ("GET", "/version"): Route("version", lambda _: version, 0),
    }
