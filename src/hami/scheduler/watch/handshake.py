"""Whether a node's agent is alive, from the handshake annotation it renews.

An agent writes ``Reported_<time>``. Clocks of nodes differ, so a value that
changes before our eyes proves life whatever time it names; only a value that
was there when we first looked is judged by the time in it. Knows no ledger.
"""

import time
from collections.abc import Callable

from msgspec import Struct

from hami.model.errors import Malformed
from hami.wire.annotations import decode_handshake

REPORTED = "Reported"


class Report(Struct):
    """One node's last word."""

    text: str
    at: float
    """Seconds of the local monotonic clock at which it was true."""


class Handshakes:
    """Last report of each node, against a timeout in seconds (0: never out)."""

    def __init__(self, timeout: float, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self._timeout = timeout
        self._clock = clock
        self._wall = wall
        self._reports: dict[str, Report] = {}
        self._out: set[str] = set()

    def see(self, node: str, text: str | None) -> None:
        """Note the annotation's value as it is now. One that is no report is no news."""
        stated = reported(text)
        if text is None or stated is None:
            self.forget(node)
            return
        known = self._reports.get(node)
        if known is None:
            self._reports[node] = Report(text, self._clock() - max(0.0, self._wall() - stated))
        elif known.text != text:
            self._reports[node] = Report(text, self._clock())

    def forget(self, node: str) -> None:
        self._reports.pop(node, None)
        self._out.discard(node)

    def problem(self, node: str) -> str | None:
        """Why the node takes no pods, in words that do not change while it lasts."""
        report = self._reports.get(node)
        if report is None or not self._timeout or self._clock() - report.at <= self._timeout:
            self._out.discard(node)
            return None
        self._out.add(node)
        said = report.text.removeprefix(f"{REPORTED}_")
        return f"the node's agent has not reported since {said} UTC, more than {self._timeout:g} s ago"

    def turned(self) -> list[str]:
        """Nodes that have run out since they were last judged."""
        now = self._clock()
        return [
            node
            for node, report in self._reports.items()
            if self._timeout and now - report.at > self._timeout and node not in self._out
        ]


def reported(text: str | None) -> float | None:
    """Unix seconds of a report; None for any other word (a scheduler's ``Requesting``) or nonsense."""
    if text is None:
        return None
    try:
        word, stated = decode_handshake(text)
    except Malformed:
        return None
    return stated if word == REPORTED else None
