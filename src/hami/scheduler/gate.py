"""Whether this replica may decide now, and if not, why.

A decision on a ledger that is not rebuilt, or beside another deciding replica,
would hand out a slice twice; so every extender verb asks here first, and
/readyz shows the same.
"""

from collections.abc import Callable

from hami.observe.health import Health

NODES = "nodes"
PODS = "pods"
LEADING = "leading"

TERM_OVER = "leading: the term has run out by our own clock"
NOT_REBUILT = "not rebuilt from the API server yet; that takes seconds, unless the API server does not answer"


class Gate:
    """Open when this replica leads and its ledger was rebuilt after it began to."""

    def __init__(self) -> None:
        self.health = Health((NODES, PODS, LEADING))
        self._closed: str | None = ""
        self._in_term: Callable[[], bool] = lambda: True
        self.opened: Callable[[], None] = lambda: None
        """Called each time it opens, before anything is answered."""
        self.rebuild()
        self.follow("it has not been elected")

    def rebuild(self) -> None:
        """Close until nodes and pods have been read again."""
        self.health.unmet(NODES, NOT_REBUILT)
        self.health.unmet(PODS, NOT_REBUILT)
        self._judge()

    def rebuilt(self, part: str) -> None:
        self.health.met(part)
        self._judge()

    @property
    def closed(self) -> str | None:
        """Why no decision is made now; None when it may be."""
        if self._closed is None and not self._in_term():
            return TERM_OVER
        return self._closed

    def lead(self, in_term: Callable[[], bool] = lambda: True) -> None:
        """`in_term` is asked at each request: a process that was stopped for a while must not
        answer one before it has noticed that its term is over.
        """
        self._in_term = in_term
        self.health.met(LEADING)
        self._judge()

    def follow(self, why: str) -> None:
        self.health.unmet(LEADING, why)
        self._judge()

    def _judge(self) -> None:
        before, self._closed = self._closed, None if self.health.ready else "; ".join(self.health.reasons)
        if before is not None and self._closed is None:
            self.opened()
