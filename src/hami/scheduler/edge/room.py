"""Memory for what strangers send: anybody who reaches the port may call the webhook, with bodies of several MiB.

Small bodies are read whoever else sends one. Of large ones a few are in memory at the same time, some more wait for a
moment, and all others are told to try again: a thousand connections would otherwise take gigabytes. Knows no HTTP.
"""

import asyncio

SMALL = 64 << 10
"""Bytes up to which a body needs no room: all connections together send 64 MiB of such."""
AT_ONCE = 8
"""Large bodies that are read and answered at the same time."""
WAITING = 64
"""That wait; what a connection has sent already takes about a MiB."""
PATIENCE_S = 1.0
"""For which they wait."""


class Room:
    """Of one listener and its event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def enter(self) -> bool:
        """Whether there is room, after a moment if need be; then `leave` follows."""
        if self._waiting >= WAITING:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._free.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    def leave(self) -> None:
        self._free.release()
