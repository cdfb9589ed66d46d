"""A replica's calls to the API server, each of which may be lost, doubled in effect, late or refused."""

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from hami.kube.errors import ApiError, Unanswered, Unreachable
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.route import refuse

from .stepping import Pause

SERVER_GIVES_UP = 60.0
"""Seconds after which kube-apiserver has dropped a request it was slow with."""


@dataclass
class Late:
    """A request whose sender has given up and which the server may still carry out, until `deadline`."""

    method: str
    path: str
    body: bytes
    deadline: float


class Network:
    """Chances of trouble, for all replicas of a world."""

    def __init__(self, chance: random.Random, trouble: float) -> None:
        self.chance = chance
        self.trouble = trouble
        kinds = ["drop", "lose", "refuse", "fail", "late"]
        self._kinds = chance.sample(kinds, chance.randrange(1, len(kinds) + 1))

    def fault(self) -> str:
        if self.chance.random() >= self.trouble:
            return ""
        return self.chance.choice(self._kinds)


class Api:
    """What `Binder` asks of a `Kube`. `alive` false: the process is cut off, nothing goes out or comes in."""

    def __init__(self, desk: Desk, network: Network, now: "Mapping[str, float]") -> None:
        self._desk = desk
        self._network = network
        self._now = now
        self.alive = True
        self.impatient = False
        """Whether the time of what is in flight has run out."""
        self.late: list[Late] = []

    async def get(self, path: str, type: type[Any]) -> Any:  # noqa: A002
        return msgspec.json.decode(await self.request("GET", path), type=type)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as Kube's
    ) -> bytes:
        payload = b"" if body is None else msgspec.json.encode(body)
        fault = self._network.fault()
        await Pause()  # on its way there
        if not self.alive:
            # The process ends with a request in flight, which arrives now or never.
            if self._network.chance.random() < 0.5:
                self._carry_out(method, path, payload)
            raise Unanswered(path)
        if self.impatient and self._network.chance.random() < 0.5:
            fault = "late"
        if fault == "drop":
            raise Unreachable(path)
        if fault == "refuse":
            code, reason = self._network.chance.choice([(429, "TooManyRequests"), (403, "Forbidden"), (503, "Down")])
            raise refuse(code, reason, "by chance")
        if fault == "late":
            if method != "GET":
                self.late.append(Late(method, path, payload, self._now["clock"] + SERVER_GIVES_UP))
            await Pause()
            raise Unanswered(path)
        _, answer = self._desk.answer(method, path, {}, payload)
        if fault == "fail":
            raise refuse(504, "Timeout", "by chance, and it was done")
        await Pause()  # on its way back
        if fault == "lose" or not self.alive:
            raise Unanswered(path)
        return answer

    def land(self, late: Late) -> None:
        """The server comes round to a request whose sender has given up."""
        self.late.remove(late)
        self._carry_out(late.method, late.path, late.body)

    def _carry_out(self, method: str, path: str, payload: bytes) -> None:
        with suppress(ApiError):  # refused, and nobody hears of it
            self._desk.answer(method, path, {}, payload)
