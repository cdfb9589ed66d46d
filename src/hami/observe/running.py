"""A program at work: its duties side by side, until it is told to stop or one of them fails."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Iterable

log = logging.getLogger(__name__)


async def until_stopped(duties: Iterable[Awaitable[None]]) -> None:
    """Returns when SIGTERM or SIGINT has come and every duty has ended; raises what a duty raised, in a group."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_duty(duty)) for duty in duties]
        await _told_to_stop()
        for task in tasks:
            task.cancel()


async def _duty(duty: Awaitable[None]) -> None:
    await duty


async def _told_to_stop() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
    log.info("stopping")
