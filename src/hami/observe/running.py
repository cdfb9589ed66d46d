"""A program at work: its duties side by side, until it is told to stop or one of them fails."""

import asyncio
import logging
import resource
import signal
from collections.abc import Awaitable, Iterable

from hami.model.errors import HamiError

log = logging.getLogger(__name__)


async def until_stopped(duties: Iterable[Awaitable[None]]) -> None:
    """Returns when SIGTERM or SIGINT has come and every duty has ended.

    Raises what a duty raised, in a group; a fault that says itself what is wrong, as it is.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_duty(duty)) for duty in duties]
            await _told_to_stop()
            for task in tasks:
                task.cancel()
    except ExceptionGroup as faults:
        known, others = faults.split(HamiError)
        if known is None or others is not None:
            raise
        raise _first(known) from faults


def allow_descriptors(wanted: int) -> None:
    """So many files and connections at once, or as many as we may: containers are given 1024 to begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _first(faults: ExceptionGroup[HamiError]) -> HamiError:
    """Duties may have groups of their own."""
    first = faults.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def _duty(duty: Awaitable[None]) -> None:
    await duty


async def _told_to_stop() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
    log.info("stopping")
