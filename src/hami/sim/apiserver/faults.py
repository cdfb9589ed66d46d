"""Misbehaviour on order: of single requests by script, of watches by chance. Reproducible from a seed."""

import random
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct


class Fault(Struct):
    """What happens to the next `times` requests whose method and path match (a path by any part of it).

    refuse: answered with `status`, nothing done. drop: the connection is closed before anything is done.
    lose: done, and the connection closed without an answer. delay: `seconds` late.
    """

    act: Literal["refuse", "drop", "lose", "delay"]
    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 503
    reason: str = ""
    retry_after: int | None = None
    seconds: float = 0.0

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in ("", method) and self.path in path


class Mischief(Struct, frozen=True):
    """Chances, for each delivery of lines by a watch."""

    cut: float = 0.0
    """The connection breaks, half of the time in the middle of a line."""
    duplicate: float = 0.0
    """A line comes twice."""
    late: float = 0.0
    """A line that this connection has sent before comes again."""
    reorder: float = 0.0
    """Two neighbouring lines change places (never past a bookmark, which is a promise)."""
    gone: float = 0.0
    """The watch ends with an ERROR line, 410."""


class Delivery(Struct):
    """What goes out of a batch of lines."""

    chunks: list[bytes]
    cut: bool = False
    gone: bool = False


class Faults:
    """All that is to go wrong. `script` for single requests, `mischief` for watches."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self.mischief = Mischief()
        self._script: list[Fault] = []

    def script(self, *faults: Fault) -> None:
        self._script += faults

    def clear(self) -> None:
        self._script.clear()
        self.mischief = Mischief()

    def of_request(self, method: str, path: str) -> Fault | None:
        """The fault of this request, used up by one."""
        for fault in self._script:
            if fault.matches(method, path):
                fault.times -= 1
                return fault
        return None

    def deliver(self, lines: Sequence[bytes], sent: list[bytes]) -> Delivery:
        """Lines as they leave. `sent` is what the connection sent before, and is added to."""
        mischief, chance = self.mischief, self.random
        if mischief == Mischief():
            return Delivery(list(lines))
        delivery = Delivery(list(lines))
        # The cut comes first: an event that overtook another one and outlived it could not be told from a loss.
        if chance.random() < mischief.cut:
            at = chance.randrange(len(lines) + 1)
            half = lines[at][: len(lines[at]) // 2] if at < len(lines) and chance.random() < 0.5 else b""
            delivery = Delivery(list(lines[:at]), cut=True)
            self._disturb(delivery.chunks, sent)
            delivery.chunks.append(half)
            return delivery
        self._disturb(delivery.chunks, sent)
        delivery.gone = chance.random() < mischief.gone
        return delivery

    def _disturb(self, lines: list[bytes], sent: list[bytes]) -> None:
        mischief, chance = self.mischief, self.random
        if len(lines) > 1 and chance.random() < mischief.reorder:
            at = chance.randrange(len(lines) - 1)
            pair = lines[at : at + 2]
            if not any(b'"BOOKMARK"' in line[:24] for line in pair):
                lines[at : at + 2] = reversed(pair)
        if lines and chance.random() < mischief.duplicate:
            at = chance.randrange(len(lines))
            lines.insert(at, lines[at])
        if sent and chance.random() < mischief.late:
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(sent))
        sent.extend(line for line in lines if b'"BOOKMARK"' not in line[:24])
        del sent[:-64]
