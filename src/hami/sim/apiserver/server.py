"""The simulated API server on a loopback socket, with faults. An async context manager."""

import asyncio
import ssl
from pathlib import Path
from typing import Self

import msgspec
import yaml
from aiohttp import web

from hami.kube.errors import ApiError
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.cursor import Cursor, error_line
from hami.sim.apiserver.faults import Fault, Faults
from hami.sim.apiserver.store import Change, Store

BODY_LIMIT = 3 << 20
"""Bytes, as kube-apiserver's."""


class ApiServer:
    """Serves `store`. Tests write to the store, order `faults`, and read `requests`.

    bookmarks: seconds between bookmarks of a watch; None sends none.
    tokens: bearer tokens that are let in; None lets everybody in.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        faults: Faults | None = None,
        bookmarks: float | None = None,
        watch_lists: bool = True,
        tokens: set[str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.store = store or Store()
        self.faults = faults or Faults()
        self.bookmarks = bookmarks
        self.tokens = tokens
        self.requests: list[tuple[str, str]] = []
        """Method and path with query of each request, in order."""
        self.url = ""
        self._desk = Desk(self.store, watch_lists=watch_lists)
        self._tls = tls
        self._watches: dict[int, web.Request] = {}
        self._woken = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=BODY_LIMIT)
        application.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}"
        self.store.on_change.append(self._wake)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.on_change.remove(self._wake)
        self.cut()
        if self._runner:
            await self._runner.cleanup()

    def kubeconfig(self, path: Path, token: str = "", authority: Path | None = None) -> str:
        """Write a kubeconfig for this server; its name."""
        cluster = {"server": self.url} | ({"certificate-authority": str(authority)} if authority else {})
        config = {
            "current-context": "sim",
            "clusters": [{"name": "sim", "cluster": cluster}],
            "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "sim"}}],
            "users": [{"name": "sim", "user": {"token": token} if token else {}}],
        }
        path.write_text(yaml.safe_dump(config))
        return str(path)

    def cut(self) -> None:
        """Break every watch that is open, without a word."""
        for request in list(self._watches.values()):
            if request.transport is not None:
                request.transport.abort()
        self._wake()

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self._watches)

    def _wake(self, _: Change | None = None) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    # -- requests -----------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        fault = self.faults.of_request(request.method, request.path_qs)
        try:
            self._admit(request)
            if fault is not None and (answer := await self._first(request, fault)) is not None:
                return answer
            if request.method == "GET" and request.query.get("watch") in ("true", "1"):
                return await self._watch(request)
            body = await request.read()
            status, answered = self._desk.answer(
                request.method, request.path, request.query, body, request.content_type
            )
        except ApiError as refusal:
            return _refused(refusal)
        if fault is not None and fault.act == "lose":
            return _hang_up(request)
        return web.Response(body=answered, status=status, content_type="application/json")

    def _admit(self, request: web.Request) -> None:
        proof = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and proof not in self.tokens:
            raise ApiError(401, "Unauthorized", "Unauthorized")

    async def _first(self, request: web.Request, fault: Fault) -> web.StreamResponse | None:
        """What a fault does before the request is carried out."""
        if fault.act == "delay":
            await asyncio.sleep(fault.seconds)
        elif fault.act == "refuse":
            raise ApiError(fault.status, fault.reason, "by order of the test", fault.retry_after)
        elif fault.act == "drop":
            return _hang_up(request)
        return None

    # -- watches ------------------------------------------------------------------

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        cursor, lines = self._desk.watch_of(request.path, request.query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches[id(request)] = request
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", 3600))):
                await self._stream(request, response, cursor, lines)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            del self._watches[id(request)]
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, cursor: Cursor, lines: list[bytes]
    ) -> None:
        sent: list[bytes] = []
        bookmarks = self.bookmarks if request.query.get("allowWatchBookmarks") == "true" else None
        while request.transport is not None:
            woken = self._woken
            delivery = self.faults.deliver(lines, sent)
            if chunk := b"".join(delivery.chunks):
                await response.write(chunk)
            if delivery.gone:
                await response.write(error_line(410, "Expired", "too old resource version: by order of the test"))
            if delivery.cut and request.transport is not None:
                request.transport.abort()
            if delivery.cut or delivery.gone:
                return
            quiet = not await _set_within(woken, bookmarks)
            try:
                lines = cursor.read()
            except ApiError as refusal:
                await response.write(error_line(refusal.status, refusal.reason, refusal.message))
                return
            if quiet:
                lines.append(cursor.bookmark())


async def _set_within(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _refused(refusal: ApiError) -> web.Response:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": refusal.message,
        "reason": refusal.reason,
        "code": refusal.status,
    }
    headers = {"Retry-After": f"{refusal.retry_after:.0f}"} if refusal.retry_after is not None else {}
    return web.Response(
        body=msgspec.json.encode(status), status=refusal.status, content_type="application/json", headers=headers
    )


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
