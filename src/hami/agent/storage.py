"""Can a grant be written down? Where it cannot, the node's cards take no new pods until it can again.

A grant is files: its checkpoint, its policy, its ledger. On a disk that is full, read-only or stands still each pod
placed here would be refused by kubelet, and the next one be placed here again. So the folders are written to
every now and then, and at once after a write that failed; the checkpoint's, which must outlive a power cut, as far as
the disk itself, for some tell only then that they take nothing. A moment without room is forgiven; who comes back from
a longer one has room to spare, for a while. Knows files and settings only; whom it concerns is told by the callbacks.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from hami.agent.files import replace_file
from hami.agent.settings import Settings
from hami.vendors.nvidia.worker import Stuck, Worker

log = logging.getLogger(__name__)
LOOK_S = 10.0
AGAIN_S = 1.0
"""From a look that failed to the one that confirms it: a log that is just rotated costs the node nothing."""
STUCK_S = 20.0
"""A look that takes longer finds a disk that stands still. An Allocate would keep kubelet waiting as long."""
GRANT_BYTES = 64 << 10
"""More than one grant writes, beside a checkpoint that is written anew as a whole."""
SPARE_BYTES = 1 << 20
"""More than that must be free to come back."""


class Folder(Struct, frozen=True):
    """A folder that grants are written to."""

    path: Path
    mode: int = 0o755
    rewritten: Path | None = None
    """The file that each grant writes anew beside the old one: it must fit a second time."""

    @property
    def durable(self) -> bool:
        """Whether what is written here must outlive a power cut. Policies and ledgers are made anew after one."""
        return self.rewritten is not None


def checkpoint(settings: Settings) -> Path:
    return Path(settings.state_dir) / "allocations.json"


def allocations(settings: Settings) -> Path:
    return Path(settings.hook_path) / "vgpu/allocations"


def written(settings: Settings) -> list[Folder]:
    """Where grants are written to: the checkpoint, the policies and, where they are elsewhere, the ledgers."""
    rewritten = checkpoint(settings)
    folders = [Folder(rewritten.parent, 0o700, rewritten), Folder(allocations(settings))]
    return [*folders, Folder(Path(settings.ledger_dir))] if settings.ledger_dir else folders


class Storage:
    """Looks at `folders` and calls `withhold` with a reason while they cannot be written to, with None after that.

    `refused` is called after each such look to which the disk gave an answer: one that stands still is not to be
    written to any more. `tell` takes an event's kind, reason and message. Times in seconds; `quiet` is how long all
    must have been well before pods come again: a disk at its brim fills and empties in turn.
    """

    def __init__(
        self,
        folders: Sequence[Folder],
        worker: Worker,
        withhold: Callable[[str | None], object],
        tell: Callable[[Literal["Normal", "Warning"], str, str], None] = lambda kind, reason, message: None,
        *,
        refused: Callable[[], None] = lambda: None,
        quiet: float = 60.0,
        stuck: float = STUCK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._worker = worker
        self._withhold = withhold
        self._tell = tell
        self._refused = refused
        self._quiet = quiet
        self._stuck = stuck
        self._clock = clock
        self._suspected = asyncio.Event()
        self._doubt = True
        """Whether the next fault counts at once: it confirms one, or nothing was ever seen to be well."""
        self._well_since: float | None = None
        self.problem: str | None = None
        """Why no grant can be written; None while it can."""

    def suspect(self) -> None:
        """A write has failed: look now."""
        self._suspected.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.pause):
                    await self._suspected.wait()
            self._suspected.clear()
            await self.once()

    @property
    def pause(self) -> float:
        """Seconds to the next look."""
        if self.problem is not None:
            return min(LOOK_S, self._quiet / 2)
        return AGAIN_S if self._doubt else LOOK_S

    async def once(self) -> None:
        """One look, and what follows from it."""
        fault = await self._look(SPARE_BYTES if self.problem is not None else 0)
        if self.problem is None:
            self._while_well(fault)
        else:
            self._while_withheld(fault)

    async def _look(self, spare: int) -> str | None:
        try:
            fault = await self._worker.run(lambda: unwritable(self._folders, spare), timeout=self._stuck)
        except Stuck:
            return f"{', '.join(str(one.path) for one in self._folders)}: no answer within {self._stuck:.0f} s"
        if fault is not None:
            self._refused()
        return fault

    def _while_well(self, fault: str | None) -> None:
        if fault is None or not self._doubt:
            self._doubt = fault is not None
            return
        self.problem, self._doubt, self._well_since = fault, False, None
        log.error("no grant can be written", extra={"why": fault})
        self._withhold(fault)
        message = f"{fault}: this node's cards take no new pods until it can be written to; those that run go on"
        self._tell("Warning", "DiskUnwritable", message)

    def _while_withheld(self, fault: str | None) -> None:
        now = self._clock()
        if fault is not None:
            self.problem, self._well_since = fault, None
            self._withhold(fault)
        elif self._well_since is None:
            self._well_since = now
        elif now - self._well_since >= self._quiet:
            self.problem = None
            log.info("grants can be written again")
            self._withhold(None)
            self._tell("Normal", "DiskWritable", "grants can be written again: this node's cards take pods")


def unwritable(folders: Sequence[Folder], spare: int = 0) -> str | None:
    """Why the next grant could not be written with `spare` bytes left over; None where it could. Blocks."""
    for folder in folders:
        probe = folder.path / ".probe"
        try:
            folder.path.mkdir(parents=True, exist_ok=True, mode=folder.mode)
            probe.unlink(missing_ok=True)  # of an agent that was killed: it has the room that is looked for
            # Random, so that a file system that compresses sets as much aside as for anything else.
            replace_file(
                probe, os.urandom(_size(folder.rewritten) + GRANT_BYTES + spare), 0o600, durable=folder.durable
            )
            probe.unlink()
        except OSError as fault:
            return f"cannot write to {folder.path}: {fault.strerror or fault}"
    return None


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path is not None else 0
    except FileNotFoundError:
        return 0
