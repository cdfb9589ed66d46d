"""Follow a collection of the API server for ever: the driver that feeds a `Reflector`.

    follow -> list by pages, or as the first part of a watch -> watch -> cut -> resume -> 410 -> list ...

It owns time (inactivity, backoff, deadlines) and the connection; what an event
means is the reflector's part, what it is good for the consumer's.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from msgspec import Struct

from hami.kube.backoff import Backoff
from hami.kube.client import PAGE, Kube, Params
from hami.kube.errors import ApiError, BadRequest, Gone, Invalid, TooLarge
from hami.kube.lines import Lines
from hami.kube.page import Object, Page
from hami.kube.reflector import Event, Reflector, Synced
from hami.model.errors import Bug, Malformed, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Object)
SLICE_S = 0.004
"""How long events are handed out before the loop may do something else: half of a filter's budget."""


class Timing(Struct, frozen=True):
    """Seconds."""

    idle: float = 150.0
    """Silence after which a watch counts as dead; the server sends a bookmark about each 60."""
    initial_idle: float = 20.0
    """The same while a streamed list is awaited: an old server takes it for a plain watch and says nothing."""
    connection: tuple[float, float] = (300.0, 600.0)
    """The server is asked to end a watch after a time between these, which spreads clients over servers."""
    first_wait: float = 0.2
    most_wait: float = 30.0
    relist: float | None = None
    """List again this often even if nothing seems wrong; None never."""


class Contact(Struct):
    """How following goes, for health and metrics. Times are the loop's."""

    synced: bool = False
    """Whether a list was ever complete."""
    heard_at: float = 0.0
    fault: str = ""
    """Why nothing is heard now; empty when all is well."""
    lists: int = 0
    cuts: int = 0
    events: int = 0


async def follow(
    kube: Kube,
    path: str,
    type: type[T],  # noqa: A002
    params: Params | None = None,
    on_event: Callable[[Event[T]], None] = lambda _: None,
    *,
    timing: Timing = Timing(),  # noqa: B008 - frozen
    contact: Contact | None = None,
    streaming: bool = True,
    chance: Callable[[], float] = random.random,
) -> None:
    """Tell `on_event` all changes of the collection at `path`, until cancelled.

    `on_event` is called in order, in the loop, and must not block; what it raises
    ends following as a `Bug`, since a consumer that missed an event is wrong for ever.
    After the first `Synced` a program does well to call ``gc.collect(); gc.freeze()``.
    """
    follower = _Follower(
        kube,
        path,
        type,
        params or {},
        on_event,
        timing=timing,
        contact=contact or Contact(),
        streaming=streaming,
        chance=chance,
    )
    await follower.run()


async def changes(
    kube: Kube,
    path: str,
    type: type[T],  # noqa: A002
    params: Params | None = None,
    *,
    timing: Timing = Timing(),  # noqa: B008
    contact: Contact | None = None,
) -> AsyncIterator[Event[T]]:
    """`follow` as an iterator, for one that wants to wait between events. Close it to end."""
    queue: asyncio.Queue[Event[T]] = asyncio.Queue()
    task = asyncio.create_task(follow(kube, path, type, params, queue.put_nowait, timing=timing, contact=contact))
    try:
        while True:
            waiting = asyncio.create_task(queue.get())
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                await task  # it ends only by a fault, which is raised here
            yield await waiting
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class _Follower(Generic[T]):
    def __init__(
        self,
        kube: Kube,
        path: str,
        type: type[T],  # noqa: A002
        params: Params,
        on_event: Callable[[Event[T]], None],
        *,
        timing: Timing,
        contact: Contact,
        streaming: bool,
        chance: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._path = path
        self._type = type
        self._params = params
        self._on_event = on_event
        self._timing = timing
        self._contact = contact
        self._streaming = streaming
        self._chance = chance
        self._reflector = Reflector(type)
        self._backoff = Backoff(timing.first_wait, timing.most_wait, chance)
        self._clock = asyncio.get_running_loop().time
        self._relist_at = float("inf")
        self._yielded_at = 0.0

    async def run(self) -> None:
        while True:
            try:
                if not self._reflector.watching:
                    await self._list()
                await self._watch()
            except Gone as fault:
                # Not a fault of anybody: quiet collections outlive the server's history.
                log.info("relist", extra={"path": self._path, "why": fault.message})
                self._reflector.lost()
                await asyncio.sleep(self._backoff.wait())
            except (ApiError, Unavailable, Malformed, TimeoutError) as fault:
                await self._pause(fault)

    async def _pause(self, fault: Exception) -> None:
        why = str(fault) or f"nothing heard for {self._timing.idle:.0f} s"
        self._contact.cuts += 1
        self._contact.fault = why
        wait = self._backoff.wait()
        log.warning("watch interrupted", extra={"path": self._path, "why": why, "retry_in_s": round(wait, 2)})
        await asyncio.sleep(wait)

    # -- list -------------------------------------------------------------------

    async def _list(self) -> None:
        self._contact.lists += 1
        if self._timing.relist is not None:
            self._relist_at = self._clock() + self._timing.relist
        if self._streaming and await self._list_streamed():
            return
        await self._list_paged()

    async def _list_streamed(self) -> bool:
        """A watch that begins with all objects: no big answer on either side. False if the server cannot."""
        self._reflector.begin(streaming=True)
        asked = {
            "resourceVersionMatch": "NotOlderThan",
            "sendInitialEvents": "true",
            "resourceVersion": "",
        }
        try:
            await self._stream(asked, self._timing.initial_idle)
        except (Invalid, BadRequest, TimeoutError) as refusal:
            if self._reflector.watching:
                raise
            log.info("list by pages", extra={"path": self._path, "why": str(refusal) or "no streamed list came"})
            self._streaming = False
            return False
        return self._reflector.watching

    async def _list_paged(self) -> None:
        """Pages of 500; when the server forgets a list half way, again, the last time in one piece."""
        for limit in (PAGE, PAGE, 0):
            try:
                await self._pages(limit)
            except (Gone, TooLarge):
                if limit == 0:
                    raise
            else:
                return

    async def _pages(self, limit: int) -> None:
        self._reflector.begin()
        asked: dict[str, str | int] = {**self._params, "limit": limit} if limit else dict(self._params)
        page = await self._kube.page(self._path, self._type, asked)
        version = page.version  # of the first: what happens while we page comes again by the watch
        while True:
            self._heard()
            ahead = self._next_page(asked, page)
            try:
                await self._hand_out(self._reflector.page(page))
                if ahead is None:
                    break
                page = await ahead
            finally:
                if ahead is not None and not ahead.done():
                    ahead.cancel()
        await self._hand_out(self._reflector.end(version))

    def _next_page(self, asked: dict[str, str | int], page: Page[T]) -> "asyncio.Task[Page[T]] | None":
        """Fetched while this one is handed out: the server reads etcd as we work."""
        if not page.next:
            return None
        more = {**asked, "continue": page.next}
        return asyncio.create_task(self._kube.page(self._path, self._type, more))

    # -- watch ------------------------------------------------------------------

    async def _watch(self) -> None:
        while self._reflector.watching:
            if self._clock() >= self._relist_at:
                self._reflector.lost()
                return
            began, events = self._clock(), self._contact.events
            await self._stream({"resourceVersion": self._reflector.version}, self._timing.idle)
            if self._contact.events == events and self._clock() - began < 1.0:
                # Accepted and closed at once, again and again, would be a busy loop.
                await asyncio.sleep(self._backoff.wait())

    async def _stream(self, asked: Params, idle: float) -> None:
        """One connection, to its end. Raises what ended it, if it was not the server's own time limit."""
        low, high = self._timing.connection
        params = {
            **self._params,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": int(low + (high - low) * self._chance()),
            **asked,
        }
        lines = Lines()
        async with aclosing(self._kube.watch(self._path, params)) as chunks, asyncio.timeout(idle) as limit:
            async for chunk in chunks:
                limit.reschedule(None)  # our own work is not the server's silence
                self._heard()
                if chunk and self._reflector.watching:  # one that accepts and says nothing may also close at once
                    self._backoff.reset()
                for line in lines.feed(chunk):
                    await self._hand_out(self._reflector.line(line))
                if self._clock() >= self._relist_at:
                    return
                limit.reschedule(self._clock() + (self._timing.idle if self._reflector.watching else idle))

    # -- handing out --------------------------------------------------------------

    def _heard(self) -> None:
        self._contact.heard_at = self._clock()
        self._contact.fault = ""

    async def _hand_out(self, events: Iterable[Event[T]]) -> None:
        for event in events:
            self._contact.events += 1
            try:
                self._on_event(event)
            except Exception as fault:
                raise Bug(f"consumer of {self._path} failed at {event!r:.200}: {fault!r}") from fault
            if isinstance(event, Synced):
                self._contact.synced = True
        if self._clock() - self._yielded_at > SLICE_S:
            await asyncio.sleep(0)
            self._yielded_at = self._clock()
