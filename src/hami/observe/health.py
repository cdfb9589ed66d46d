"""Readiness: named conditions, each with the reason while it does not hold.

A program names its conditions at the start, all unmet; it is ready when all
hold. ``/readyz`` shows `text` with 200 or 503, so ``kubectl describe`` says why.
"""

import logging
import time
from collections.abc import Callable, Iterable

from msgspec import Struct

log = logging.getLogger(__name__)


class Condition(Struct, frozen=True):
    name: str
    met: bool
    reason: str
    since: float
    """Seconds of the clock that `Health` was given."""


class Health:
    """The conditions of one program, all unmet at first."""

    def __init__(self, conditions: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._conditions = {name: Condition(name, False, "not yet", clock()) for name in conditions}

    def met(self, name: str) -> None:
        self._set(name, True, "")

    def unmet(self, name: str, reason: str) -> None:
        """`reason` is read by the person who asks why nothing works: name the thing and the way out."""
        self._set(name, False, reason)

    @property
    def ready(self) -> bool:
        return all(condition.met for condition in self._conditions.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """``name: reason`` of each condition that does not hold."""
        return tuple(f"{each.name}: {each.reason}" for each in self._conditions.values() if not each.met)

    def conditions(self) -> tuple[Condition, ...]:
        return tuple(self._conditions.values())

    def text(self) -> str:
        """One line a condition, in the form of kube-apiserver's ``/readyz?verbose``."""
        lines = [
            f"[+]{each.name} ok" if each.met else f"[-]{each.name} {each.reason} ({self._clock() - each.since:.0f} s)"
            for each in self._conditions.values()
        ]
        return "\n".join([*lines, "ready" if self.ready else "not ready"]) + "\n"

    def _set(self, name: str, met: bool, reason: str) -> None:
        before = self._conditions[name]
        if (before.met, before.reason) == (met, reason):
            return
        since = before.since if before.met == met else self._clock()
        self._conditions[name] = Condition(name, met, reason, since)
        if before.met != met:
            log.log(
                logging.INFO if met else logging.WARNING, "condition", extra={"name_": name, "met": met, "why": reason}
            )
