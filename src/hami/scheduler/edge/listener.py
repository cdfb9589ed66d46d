"""A listener: who comes in, and how many may stand at the door while their TLS handshake is unfinished.

Anybody may connect, and who never finishes a handshake has no connection yet that could be counted with the others
(`connections`). So there is a place for so many handshakes at once, and a time for each; with one more than there are
places one gives way (`share`). The API server's is done within milliseconds, so it gets through beside any number of
those that stand still. Knows no HTTP.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Literal

from aiohttp import web

from hami.scheduler.edge.connections import BoundedServer
from hami.scheduler.edge.share import gives_way

log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""As long as the API server waits for a whole review (the default of `timeoutSeconds`)."""
CONNECTIONS_A_PLACE = 4
"""A listener has one place for a handshake to so many connections it may have."""
FEWEST = 16
"""Places for handshakes, however few connections there may be."""
BACKLOG = 1024
A_TURN = 64
"""Connections taken in before the loop may do something else."""
AGAIN_S = 0.1
"""After a connection could not be taken in: no descriptor was left."""
TELL_S = 60.0
"""Between two lines of the log about handshakes that were ended, or connections that could not be taken in."""

Result = Literal["done", "failed", "late", "gave_way"]


class Handshake:
    """One that is not finished, and the address it comes from."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self.connection = connection
        self.peer = peer
        self.begun = False
        self.gave_way = False
        self.task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """The task closes the connection where it has begun; one that has not never will."""
        self.gave_way = True
        if self.task is not None:
            self.task.cancel()
        if not self.begun:
            self.connection.close()


class Listener:
    """In front of one server. `ended` is told what became of each handshake.

    Without a context there are none: plain HTTP.
    """

    def __init__(
        self,
        server: BoundedServer,
        context: ssl.SSLContext | None,
        max_connections: int,
        ended: Callable[[Result], None] = lambda _: None,
        *,
        deadline: float = HANDSHAKE_S,
    ) -> None:
        self._server = server
        self._runner = web.ServerRunner(server, handle_signals=False)
        self._context = context
        self._most = max(FEWEST, max_connections // CONNECTIONS_A_PLACE)
        self._ended = ended
        self._deadline = deadline
        self._sockets: list[socket.socket] = []
        self._handshakes: dict[Handshake, None] = {}
        """As they came."""
        self._untold = {"late": 0, "gave_way": 0}
        self._tell_at = self._tell_wait_at = 0.0
        self.accepted = 0
        """Connections that were taken in."""

    def __len__(self) -> int:
        """Handshakes that are not finished."""
        return len(self._handshakes)

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    async def open(self, host: str, port: int) -> None:
        """Take connections in. Raises OSError where the address is not to be had."""
        await self._runner.setup()
        self._sockets = await bound(host, port)
        for one in self._sockets:
            self._listen(one)

    async def cleanup(self) -> None:
        """Let nobody in any more; who is being answered gets the answer."""
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one)
            one.close()
        for handshake in list(self._handshakes):
            handshake.end()
        await self._runner.cleanup()

    def _listen(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:  # not closed meanwhile
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(A_TURN):
            try:
                connection, name = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                self._wait(listening, fault)
                return
            connection.setblocking(False)
            self._begin(connection, str(name[0]))

    def _wait(self, listening: socket.socket, fault: OSError) -> None:
        """Not to turn in circles. Whoever stands at the door has a descriptor that somebody else can use."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._tell_wait_at:
            self._tell_wait_at = loop.time() + TELL_S
            log.warning("a connection could not be taken in", extra={"why": fault.strerror or str(fault)})
        self._cut()
        loop.remove_reader(listening)
        loop.call_later(AGAIN_S, self._listen, listening)

    def _begin(self, connection: socket.socket, peer: str) -> None:
        self.accepted += 1
        handshake = Handshake(connection, peer)
        self._handshakes[handshake] = None
        handshake.task = asyncio.get_running_loop().create_task(self._shake(handshake))
        if len(self._handshakes) > self._most:
            self._cut()

    def _cut(self) -> None:
        other = gives_way(self._handshakes, lambda _: 1)
        if other is not None:
            del self._handshakes[other]
            other.end()
            self._finished(other, "gave_way")

    async def _shake(self, handshake: Handshake) -> None:
        handshake.begun = True
        result: Result = "failed"
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._server, handshake.connection, ssl=self._context
                )
            result = "done"
        except TimeoutError:
            result = "late"
        except asyncio.CancelledError:
            if not handshake.gave_way:
                raise
        except OSError:  # no TLS, a certificate of another authority, a probe that only looks whether we are there
            pass
        finally:
            self._handshakes.pop(handshake, None)
        if not handshake.gave_way:  # that was told when it did
            self._finished(handshake, result)

    def _finished(self, handshake: Handshake, result: Result) -> None:
        if self._context is not None:
            self._ended(result)
        if result in self._untold:
            self._tell(result, handshake.peer)

    def _tell(self, result: str, peer: str) -> None:
        """Seldom: who does this does it often."""
        self._untold[result] += 1
        now = asyncio.get_running_loop().time()
        if now < self._tell_at:
            return
        self._tell_at = now + TELL_S
        log.warning("TLS handshakes were ended unfinished", extra={**self._untold, "last_peer": peer})
        self._untold = dict.fromkeys(self._untold, 0)


async def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at each address a host has. Raises OSError, which names it, where there is none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, name in dict.fromkeys(found):
            try:
                one = socket.create_server(name, family=family, backlog=BACKLOG)
            except OSError as fault:
                if fault.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                absent = fault  # a machine without IPv6 has an IPv6 address for localhost all the same
                continue
            one.setblocking(False)
            sockets.append(one)
    except OSError:
        for one in sockets:
            one.close()
        raise
    if not sockets and absent is not None:
        raise absent
    return sockets
