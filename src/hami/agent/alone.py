"""One agent for one state folder: two would overwrite each other's checkpoint and take each other's sockets.

The kernel's lock on the folder itself: no file that could be left behind, none to write on a full disk, and it ends
with the process however that ends.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hami.model.errors import Unavailable

log = logging.getLogger(__name__)
WAIT_S = 10.0
"""One that has been told to stop takes a second or two."""
POLL_S = 0.1


@asynccontextmanager
async def alone(folder: Path, wait: float = WAIT_S) -> AsyncIterator[None]:
    """Hold the folder meanwhile. Raises Unavailable where another agent has it for longer than `wait` seconds.

    A folder that cannot be made or opened is no reason not to serve the containers that run: said, and gone on without.
    """
    opened = _opened(folder)
    if opened is None:
        yield
        return
    try:
        await _taken(opened, folder, wait)
        yield
    finally:
        os.close(opened)


def _opened(folder: Path) -> int | None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as fault:
        log.error("the state folder cannot be held", extra={"folder": str(folder), "why": str(fault)})
        return None


async def _taken(opened: int, folder: Path, wait: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() > until:
                raise Unavailable(
                    f"another hami agent has {folder}: one agent a node, or a --state-dir for each"
                ) from None
            await asyncio.sleep(POLL_S)
        except OSError as fault:  # a file system that knows no locks
            log.warning("the state folder cannot be held", extra={"folder": str(folder), "why": str(fault)})
            return
        else:
            return
