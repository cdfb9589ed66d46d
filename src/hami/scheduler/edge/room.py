"""Memory for what strangers send: anybody who reaches the port may call the webhook, with bodies of several MiB.

Small bodies are read whoever else sends one. Large ones share a number of bytes, taken as they arrive: who sends slowly
holds little, and where there is no more, one that is not whole yet gives way to who comes (`share`). So the API
server's reviews get through beside any number of slow senders, and a thousand connections take no gigabytes.
Knows no HTTP.
"""

import asyncio
from collections.abc import Awaitable, Callable

from hami.scheduler.edge.share import gives_way

SMALL = 64 << 10
"""Bytes up to which a body needs no room: all connections together send 64 MiB of such."""
BYTES = 64 << 20
"""Of all large bodies together; never less than two of the largest."""
BODIES = 64
"""At the same time: what a connection has sent and nobody has read takes about a MiB beside."""


class GaveWay(Exception):
    """This body is not read any further: others needed its room."""


class Body:
    """One that arrives. `peer` is the address it comes from."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.size = 0
        self.chunks: list[bytes] = []
        self.whole = False
        self.gave_way = False
        self.reading = asyncio.timeout(None)
        """Has no end of its own: it is ended when the body gives way."""

    def end(self) -> None:
        self.gave_way = True
        self.chunks.clear()
        self.reading.reschedule(asyncio.get_running_loop().time())


class Room:
    """Of one listener and its event loop. `largest` is the largest body there can be."""

    def __init__(self, largest: int = 0) -> None:
        self._largest = largest
        self._free = max(BYTES, 2 * largest)
        self._bodies: dict[Body, None] = {}
        """As they came."""
        self._waiting: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        """Bodies that arrive or are answered."""
        return len(self._bodies)

    @property
    def taken(self) -> int:
        """Bytes they have."""
        return sum(one.size for one in self._bodies)

    async def read(self, body: Body, more: Callable[[], Awaitable[bytes]]) -> bytes:
        """All that `more` brings, until it brings nothing; `leave` follows, whatever comes of it. Raises GaveWay."""
        try:
            async with body.reading:
                await self._enter(body)
                while not body.gave_way and (chunk := await more()):
                    await self._put(body, chunk)
        except TimeoutError:
            if not body.gave_way:
                raise
        if body.gave_way:  # also where its last bytes came in the same moment
            raise GaveWay
        body.whole = True
        text = b"".join(body.chunks)
        body.chunks.clear()
        return text

    async def _enter(self, body: Body) -> None:
        while len(self._bodies) >= BODIES:
            if self._cut(lambda _: 1):
                continue
            if len(self._waiting) >= BODIES:
                body.gave_way = True
                return
            await self._left()
        self._bodies[body] = None

    async def _put(self, body: Body, chunk: bytes) -> None:
        while len(chunk) > self._free and not body.gave_way:
            if any(one.whole for one in self._bodies):  # answered within milliseconds: nobody need give way
                await self._left()
            else:
                self._cut(lambda one: one.size, self._largest)
        if not body.gave_way:
            self._free -= len(chunk)
            body.size += len(chunk)
            body.chunks.append(chunk)

    def leave(self, body: Body) -> None:
        """It is answered, or will not be: its room is free."""
        if body in self._bodies:
            del self._bodies[body]
            self._free += body.size
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)

    def _cut(self, weight: Callable[[Body], int], anybody: int = 0) -> bool:
        """Make room by one that is not whole yet; False where all are."""
        other = gives_way([one for one in self._bodies if not one.whole], weight, anybody)
        if other is None:
            return False
        self.leave(other)
        other.end()
        return True

    async def _left(self) -> None:
        """Until one has been answered, or broken off."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            self._waiting.remove(waiting)
