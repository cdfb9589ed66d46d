"""Requests are answered one after the other as they came, and the loop looks at its sockets between two.

An event loop reads all sockets that have something and answers everybody before it looks again. Whoever writes just
after that look waits for all the others, and then once more behind those of them who were answered first and have
written again: epoll tells of its sockets in the order it told of them before. With a look after each answer, requests
are read as they arrive, and the last of eight waits for seven. Knows no HTTP.
"""

import asyncio
from collections import deque


class Turns:
    """An async context manager: in it is whoever's turn it is. Of one event loop.

    What is done in it must not wait for anything, or all wait.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if not self._taken:
            self._taken = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given, to one who has gone
                self._pass_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        if not self._given():
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Whoever was read in the meantime waits by now."""
        self._taken = self._given()

    def _given(self) -> bool:
        """Whether somebody is there who waits; the loop looks at its sockets before he goes on."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        return False
