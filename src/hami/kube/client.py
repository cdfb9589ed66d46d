"""Calls to the API server: bytes or narrow Structs in, bytes or narrow Structs out.

One `Kube` a process. It knows HTTP, errors, retries on 429 and credentials;
it knows no resource but by path (`kube.paths`) and type (the caller's Struct).
"""

import asyncio
import os
import platform
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Literal, Self, TypeVar, overload
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from hami import __version__
from hami.kube import errors
from hami.kube.config import Target, load, ssl_context
from hami.kube.credentials import Credentials, credentials_of
from hami.kube.errors import ApiError, ServerFault, TooMany, Unanswered, Unauthorized, Unreachable
from hami.kube.keepalive import keepalive_socket
from hami.kube.pace import Bucket
from hami.kube.page import Page, decode_page
from hami.model.errors import Malformed

T = TypeVar("T")
Params = Mapping[str, str | int]
Body = bytes | bytearray | object
"""Bytes go out as they are; anything else is encoded by msgspec."""
PatchKind = Literal["merge", "json", "strategic", "apply"]
Observer = Callable[[str, int, float], None]
"""Told of each answer: verb, HTTP status (0 for none), seconds."""

CONTENT_TYPE = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
PAGE = 500
"""Objects a list call; kube-apiserver answers pages of 500 without trouble, and one decodes in 3 ms."""
TIMEOUT_S = 30.0
CONNECT_S = 10.0
ATTEMPTS = 5
LONGEST_WAIT_S = 30.0
"""A longer Retry-After is the caller's to wait for: it may have something better to do."""


class Kube:
    """The API server of one cluster. Make it with `connect`; use it as an async context manager."""

    def __init__(
        self,
        target: Target,
        *,
        qps: float | None = None,
        burst: float | None = None,
        timeout: float = TIMEOUT_S,
        observer: Observer | None = None,
        user_agent: str = f"hami/{__version__} (python {platform.python_version()}; {platform.machine()})",
        headers: Mapping[str, str] = {},
    ) -> None:
        self.target = target
        self._context = ssl_context(target)
        self._credentials: Credentials = credentials_of(target, self._context)
        self._pace = Bucket(qps, burst) if qps else None
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_S)
        self._stream_timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        self._observer = observer
        self._server_name = target.tls_server_name
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._context if self._context is not None else True,
                limit=64,
                keepalive_timeout=80.0,  # kube-apiserver closes idle connections after 90 s; close before it does
                socket_factory=keepalive_socket,
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent, "Accept": "application/json", **headers},
            skip_auto_headers=("Accept-Encoding",),  # the server would gzip big lists: its CPU and ours, for a LAN
            proxy=target.proxy,
            read_bufsize=1 << 20,  # 64 KiB, the default, halves the speed of a watch
        )

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        qps: float | None = None,
        *,
        burst: float | None = None,
        timeout: float = TIMEOUT_S,  # noqa: ASYNC109 - of the calls to come
        observer: Observer | None = None,
    ) -> Self:
        """From a kubeconfig, or from where we run (`kube.config.load`). No request is sent yet.

        `qps` None is no limit of ours: the server's own priority and fairness decides.
        Raises `Malformed` when the configuration cannot be used.
        """
        target = load(kubeconfig, context)
        return cls(target, qps=qps, burst=burst, timeout=timeout, observer=observer)

    async def close(self) -> None:
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def proof(self) -> str | None:
        """The Authorization header that requests carry, None where a client certificate is the proof."""
        return await self._credentials.header()

    # -- verbs ------------------------------------------------------------

    @overload
    async def get(self, path: str, type: type[T], params: Params | None = None) -> T: ...
    @overload
    async def get(self, path: str, type: None = None, params: Params | None = None) -> bytes: ...
    async def get(self, path: str, type: type[Any] | None = None, params: Params | None = None) -> Any:  # noqa: A002
        """One object, as `type`, or its bytes."""
        return self._typed(await self.request("GET", path, params=params), type, path)

    async def page(self, path: str, type: type[T], params: Params | None = None) -> Page[T]:  # noqa: A002
        """One answer to a list; `params` may hold ``limit``, ``continue`` and selectors."""
        return decode_page(await self.request("GET", path, params=params), type, path)

    async def list(self, path: str, type: type[T], params: Params | None = None) -> "list[T]":  # noqa: A002
        """All objects, fetched page by page. An object that cannot be read raises `Malformed`."""
        found: list[T] = []
        token = ""
        while True:
            asked: dict[str, str | int] = {"limit": PAGE, **(params or {})}
            if token:
                asked["continue"] = token
            page = await self.page(path, type, asked)
            if page.unreadable:
                broken = page.unreadable[0]
                raise Malformed(f"{path} {broken.metadata.name}", "(the object)", broken.problem)
            found += page.items
            token = page.next
            if not token:
                return found

    @overload
    async def create(self, path: str, body: Body, type: type[T], params: Params | None = None) -> T: ...
    @overload
    async def create(self, path: str, body: Body, type: None = None, params: Params | None = None) -> bytes: ...
    async def create(self, path: str, body: Body, type: Any = None, params: Params | None = None) -> Any:  # noqa: A002
        """POST. After `Unanswered` the object may exist."""
        return self._typed(await self.request("POST", path, body=body, params=params), type, path)

    @overload
    async def replace(self, path: str, body: Body, type: type[T], params: Params | None = None) -> T: ...
    @overload
    async def replace(self, path: str, body: Body, type: None = None, params: Params | None = None) -> bytes: ...
    async def replace(self, path: str, body: Body, type: Any = None, params: Params | None = None) -> Any:  # noqa: A002
        """PUT; with ``metadata.resourceVersion`` in the body it raises `Conflicted` on a stale one."""
        return self._typed(await self.request("PUT", path, body=body, params=params), type, path)

    @overload
    async def patch(
        self, path: str, body: Body, kind: PatchKind = "merge", *, type: type[T], params: Params | None = None
    ) -> T: ...
    @overload
    async def patch(
        self, path: str, body: Body, kind: PatchKind = "merge", type: None = None, params: Params | None = None
    ) -> bytes: ...
    async def patch(
        self,
        path: str,
        body: Body,
        kind: PatchKind = "merge",
        type: type[Any] | None = None,  # noqa: A002
        params: Params | None = None,
    ) -> Any:
        """PATCH; a ``metadata.resourceVersion`` in a merge patch makes it conditional."""
        answer = await self.request("PATCH", path, body=body, params=params, content_type=CONTENT_TYPE[kind])
        return self._typed(answer, type, path)

    async def delete(self, path: str, body: Body | None = None, params: Params | None = None) -> bytes:
        """DELETE; `body` may be DeleteOptions with preconditions. The answer is a Status or the object."""
        return await self.request("DELETE", path, body=body, params=params)

    async def watch(self, path: str, params: Params | None = None) -> AsyncGenerator[bytes, None]:
        """Chunks of a watch as they arrive, cut anywhere (`kube.lines` makes lines of them).

        The first is empty and says that the server accepted: a quiet collection's next word may be a minute away.

        Ends when the server ends the stream; raises `ApiError` for a refusal and
        `Unanswered` for a cut. Close the iterator (`contextlib.aclosing`) to end it early.
        """
        url = self._url(path, {"watch": "true", **(params or {})})
        if self._pace:
            await self._pace.take()
        try:
            async with await self._send("GET", url, None, None, self._stream_timeout) as response:
                if response.status >= 300:
                    raise self._refusal(response, await response.read())
                yield b""
                while chunk := await response.content.readany():
                    yield chunk
        except (aiohttp.ClientError, OSError) as fault:
            raise _network_fault(fault, path) from fault

    # -- the request itself ---------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Body | None = None,
        params: Params | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,  # noqa: ASYNC109 - one limit for connect, send and receive together
    ) -> bytes:
        """One call, with its answer's bytes. 429 is waited out as the server asks, up to 5 times.

        Raises `ApiError` for a refusal, `Unreachable` when the server got nothing,
        `Unanswered` when it got the request and its fate is unknown.
        """
        url = self._url(path, params)
        payload = body if body is None or isinstance(body, bytes | bytearray) else msgspec.json.encode(body)
        limit = self._timeout if timeout is None else aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_S)
        for attempt in range(1, ATTEMPTS + 1):
            if self._pace:
                await self._pace.take()
            try:
                return await self._once(method, url, payload, content_type, limit)
            except (TooMany, ServerFault) as refusal:
                # A Retry-After says that nothing was done: asking again is safe for every verb.
                wait = refusal.retry_after
                if wait is None or wait > LONGEST_WAIT_S or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(wait)
            except Unauthorized:
                if attempt > 1 or not await self._credentials.refresh():
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _once(
        self, method: str, url: URL, payload: bytes | bytearray | None, content_type: str, limit: aiohttp.ClientTimeout
    ) -> bytes:
        started = time.perf_counter()
        status = 0
        try:
            async with await self._send(method, url, payload, content_type, limit) as response:
                answer = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError) as fault:
            raise _network_fault(fault, url.raw_path) from fault
        finally:
            if self._observer:
                self._observer(method, status, time.perf_counter() - started)
        if status >= 300:
            raise self._refusal(response, answer)
        return answer

    async def _send(
        self,
        method: str,
        url: URL,
        payload: bytes | bytearray | None,
        content_type: str | None,
        limit: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {}
        if payload is not None and content_type is not None:
            headers["Content-Type"] = content_type
        proof = await self._credentials.header()
        if proof is not None:
            headers["Authorization"] = proof
        return await self._session.request(
            method,
            url,
            data=payload,
            headers=headers,
            timeout=limit,
            allow_redirects=False,  # a redirect would carry our token to somebody else
            server_hostname=self._server_name,
        )

    def _url(self, path: str, params: Params | None) -> URL:
        query = f"?{urlencode(params)}" if params else ""
        return URL(f"{self.target.server}{path}{query}", encoded=True)

    @staticmethod
    def _refusal(response: aiohttp.ClientResponse, answer: bytes) -> ApiError:
        return errors.from_response(response.status, answer, _seconds(response.headers.get("Retry-After")))

    @staticmethod
    def _typed(answer: bytes, type: type[Any] | None, path: str) -> Any:  # noqa: A002
        if type is None:
            return answer
        try:
            return msgspec.json.decode(answer, type=type)
        except msgspec.MsgspecError as fault:
            raise Malformed(f"answer to {path}", answer[:200], str(fault)) from fault


def _seconds(text: str | None) -> float | None:
    """Retry-After as Kubernetes sends it, whole seconds; a date or nonsense counts as absent."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _network_fault(fault: Exception, path: str) -> Unreachable | Unanswered:
    if isinstance(fault, aiohttp.ClientPayloadError):
        text = f"API server, {path}: the connection broke in the middle of an answer"
    elif isinstance(fault, aiohttp.ClientConnectorError):
        text = f"API server at {fault.host}:{fault.port}: {_why_not(fault)}"
    else:
        text = f"API server, {path}: {str(fault) or type(fault).__name__}"
    if isinstance(fault, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Unreachable(errors.cut(text))
    return Unanswered(errors.cut(text))


def _why_not(fault: aiohttp.ClientConnectorError) -> str:
    """Why there is no connection; asyncio says which call failed in place of the reason."""
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        return str(fault.certificate_error)
    number = fault.os_error.errno
    if number is not None and number > 0 and not isinstance(fault, aiohttp.ClientSSLError):
        return os.strerror(number)
    return fault.os_error.strerror or str(fault.os_error)
