"""The thin HTTP edge: one aiohttp server in front of handlers from bytes to bytes.

It guards what a stranger can do to the process: size and time of a body, who may use
the extender verbs. No fault of a client becomes a 5xx.
"""

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import hdrs, web

from hami.model.errors import HamiError, Malformed
from hami.scheduler.edge.room import SMALL, Body, GaveWay, Room
from hami.scheduler.edge.routes import Route
from hami.scheduler.edge.tls import names_of
from hami.scheduler.gate import Gate
from hami.scheduler.loop.turns import Turns
from hami.scheduler.meters import Meters

log = logging.getLogger(__name__)

SOON = 0.001
"""Seconds after an answer is made: it is on its way then."""

LARGE_S = 5.0
"""Seconds in which a large body of a stranger must arrive; the API server sends it at once."""

Arrived = Callable[[], Awaitable[bytes]]
"""All of a body, once it is there."""
Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Edge:
    """Answers requests of one listener."""

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Route],
        pages: Mapping[str, Page],
        meters: Meters,
        *,
        clients: frozenset[str] | None,
        body_timeout: float,
        calls: Mapping[str, Page] = MappingProxyType({}),
        answered: Callable[[], None] | None = None,
    ) -> None:
        self._answered = answered
        """Called a moment after an answer, or several, have gone out."""
        self._leaving = False
        self._turns = Turns()
        self._room = Room(max((route.limit for route in routes.values() if not route.guarded), default=0))
        self._calls = calls
        """Pages that judge method, caller and body themselves (`scheduler.api`)."""
        self._routes = routes
        self._pages = pages
        self._meters = meters
        self._clients = clients
        self._body_timeout = body_timeout
        self._paths = frozenset(path for _, path in routes)
        self._timers = {route.verb: meters.duration.labels(route.verb) for route in routes.values()}
        self._counts = {route.verb: meters.requests.labels(route.verb, "200") for route in routes.values()}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._routes.get((request.method, request.path))
        if route is None:
            return await self._page(request)
        if route.guarded and self._clients is not None and not self.proven(request.transport):
            return self._refuse(route, 403, stranger(request))
        if not route.guarded and route.limit > SMALL and not 0 <= _length(request) <= SMALL:
            return await self._large(request, route)
        return await self._small(request, route)

    async def _large(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """A stranger's large body is read while there is room for it, and keeps its room until it is answered."""
        body = Body(request.remote or "")

        async def more() -> bytes:
            chunk = await request.content.readany()
            if body.size + len(chunk) > route.limit:
                raise web.HTTPRequestEntityTooLarge(route.limit, body.size + len(chunk))
            return chunk

        try:
            return await self._served(request, route, lambda: self._room.read(body, more), LARGE_S)
        except GaveWay:
            return self._refuse(route, 503, "too many large requests at once, and this one began first; try again")
        finally:
            self._room.leave(body)

    async def _small(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        return await self._served(request, route, request.read, math.inf)

    async def _served(
        self, request: web.BaseRequest, route: Route, arrived: Arrived, most: float
    ) -> web.StreamResponse:
        try:
            body = await self._body(request, route, arrived, min(most, self._body_timeout))
        except web.HTTPException as fault:
            return self._refuse(route, fault.status, fault.text or fault.reason)
        started = time.perf_counter()
        response = await self.answer(route, body)
        self._timers[route.verb].observe(time.perf_counter() - started)
        if self._answered is not None and not self._leaving:
            self._leaving = True
            asyncio.get_running_loop().call_later(SOON, self._gone_out, self._answered)
        return response

    def _gone_out(self, answered: Callable[[], None]) -> None:
        self._leaving = False
        answered()

    async def answer(self, route: Route, body: bytes) -> web.Response:
        """The handler's answer, whatever becomes of it."""
        try:
            async with self._turns:
                answer = route.handler(body)
            if inspect.isawaitable(answer):
                answer = await answer
        except Malformed as fault:
            return self._fault(route, 400, str(fault))
        except HamiError as fault:
            return self._fault(route, 409, str(fault))
        except Exception:
            log.exception("%s failed on a body of %d bytes", route.verb, len(body))
            return self._fault(route, 500, f"{route.verb} failed inside the scheduler; its log says why")
        self._counts[route.verb].inc()
        return web.Response(body=answer, content_type="application/json")

    def _fault(self, route: Route, status: int, message: str) -> web.Response:
        """Said in the verb's own form where it has one, else by the status."""
        if route.fault is None:
            return self._refuse(route, status, message)
        self._meters.requests.labels(route.verb, "fault").inc()
        return web.Response(body=route.fault(message), content_type="application/json")

    def _refuse(self, route: Route, status: int, message: str) -> web.Response:
        self._meters.requests.labels(route.verb, str(status)).inc()
        response = web.Response(status=status, text=f"{message}\n")
        if status in (403, 408, 413, 503):
            response.force_close()  # what is left of the body is not read
        return response

    async def _body(self, request: web.BaseRequest, route: Route, arrived: Arrived, most: float) -> bytes:
        if not route.limit:
            return b""
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(text="a body without Content-Encoding, please")
        if (request.content_length or 0) > route.limit:
            raise web.HTTPRequestEntityTooLarge(route.limit, request.content_length or 0)
        try:
            async with asyncio.timeout(most):
                body = await arrived()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body did not arrive within {most:g} s") from None
        except (web.RequestPayloadError, ConnectionError):
            raise web.HTTPBadRequest(text="the body broke off") from None
        if not body:
            raise web.HTTPBadRequest(text="Please send a request body")
        return body

    def proven(self, transport: asyncio.BaseTransport | None) -> bool:
        """Whether it is one of the clients that have shown who they are."""
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        return self._clients is not None and not self._clients.isdisjoint(names_of(certificate))

    async def _page(self, request: web.BaseRequest) -> web.StreamResponse:
        call = self._calls.get(request.path)
        if call is not None:
            return await call(request)
        page = self._pages.get(request.path)
        if page is not None and request.method in ("GET", "HEAD"):
            return await page(request)
        if page is not None or request.path in self._paths:
            return web.Response(status=405, text=f"{request.method} is not for {request.path}\n")
        return web.Response(status=404, text="no such path\n")


def _length(request: web.BaseRequest) -> int:
    """Bytes of the body as announced; -1 where they are not."""
    length = request.content_length
    return length if length is not None else -1 if request.can_read_body else 0


def stranger(request: web.BaseRequest) -> str:
    """What a caller without the right certificate is told."""
    transport = request.transport
    names = names_of(transport.get_extra_info("peercert") if transport is not None else None)
    shown = f"your certificate names {', '.join(sorted(names))}" if names else "you showed no client certificate"
    return f"extender verbs are for kube-scheduler's client certificate; {shown} (--extender-clients)"


def health_pages(gate: Gate) -> dict[str, Page]:
    """/healthz: the loop turns. /readyz: this replica decides."""

    async def healthz(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def readyz(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if gate.health.ready else 503, text=gate.health.text())

    return {"/healthz": healthz, "/readyz": readyz}
