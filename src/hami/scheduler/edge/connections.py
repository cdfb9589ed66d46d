"""The connections of one listener: how many there are, whose is closed when there is one more, what each may send.

Anybody may connect. Who has shown kube-scheduler's certificate keeps his connection; of the others one gives way
(`share`), so that the API server finds a place beside any number of idle ones.
"""

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from hami.scheduler.edge.routes import Route
from hami.scheduler.edge.serve import Edge
from hami.scheduler.edge.share import gives_way

IDLE = 120.0
"""Seconds an idle connection, or one that sends no complete header, stays. More than the 90 s after
which Go's client drops it, so that kube-scheduler never sends into a connection we close."""


class Line:
    """One connection, and the address it comes from."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, proven: bool) -> None:
        self.protocol = protocol
        self.transport = transport
        self.proven = proven
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""


class BoundedServer(web.Server):
    """A server with a limit on connections: with one more a stranger's is closed, that asked nothing for longest."""

    def __init__(
        self, handler: Edge, limits: Callable[[str], int], max_connections: int, accepted: Callable[[], None]
    ) -> None:
        super().__init__(
            handler,
            request_factory=self._request,
            keepalive_timeout=IDLE,
            access_log=None,
            auto_decompress=False,
            lingering_time=0,
        )
        self._limits = limits
        self._max_connections = max_connections
        self._accepted = accepted
        self._proven = handler.proven
        self._lines: dict[Any, Line] = {}
        """By protocol, those that have asked last at the end."""

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._accepted()
        newcomer = self._lines[handler] = Line(handler, transport, self._proven(transport))
        if len(self._lines) > self._max_connections:
            strangers = [line for line in self._lines.values() if not line.proven]
            closed = gives_way(strangers, lambda _: 1) or newcomer
            del self._lines[closed.protocol]
            closed.transport.abort()

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._lines.pop(handler, None)
        super().connection_lost(handler, exc)

    def _request(
        self, message: RawRequestMessage, payload: StreamReader, protocol: Any, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        line = self._lines.pop(protocol, None)
        if line is not None:
            self._lines[protocol] = line
        limit = self._limits(message.path)
        return web.BaseRequest(
            message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=limit
        )


def limits_of(
    routes: Mapping[tuple[str, str], Route], further: Mapping[str, int] = MappingProxyType({})
) -> Callable[[str], int]:
    """Largest body by path. The API server calls the webhook with its timeout as a query."""
    limits = {**{path: route.limit for (_, path), route in routes.items()}, **further}
    return lambda target: limits.get(target.partition("?")[0], 1) or 1
