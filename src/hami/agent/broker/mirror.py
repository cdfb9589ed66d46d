"""What containers use, written where HAMi's vGPUmonitor looks and in its form: a file for each, never read by us.

    <hook>/vgpu/containers/<pod uid>_<container>/mirror.cache

It is an export. The monitor may write into it as it does for its own library; limits and turns come from elsewhere.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hami.agent.broker import share
from hami.agent.broker.look import Look
from hami.agent.broker.place import Place
from hami.agent.broker.server import Broker
from hami.agent.broker.session import Session
from hami.wire.broker import KINDS
from hami.wire.region import BYTES, PROCESSES, PROCESSES_AT, TAIL_AT, Region, RegionCard, RegionProcess, RegionUse

log = logging.getLogger(__name__)
NAME = "mirror.cache"
ROUND_S = 1.0
ACTIVE_S = 5.0
"""The monitor looks as often."""
_CONTEXT, _MODULE = KINDS.index("context"), KINDS.index("unattributed")


class Mirror:
    """`root`: HAMi's folder of containers. `clock` is CLOCK_MONOTONIC, `wall` Unix time, seconds."""

    def __init__(
        self,
        broker: Broker,
        look: Look,
        root: Path,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._broker, self._look, self._root, self._clock, self._wall = broker, look, root, clock, wall
        self._slots: dict[str, int] = {}
        """Of each folder how many slots are filled."""
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.round()
            await asyncio.sleep(ROUND_S)

    def round(self) -> None:
        """1. a file for each container whose first process has come, 2. none for containers that are gone."""
        names = set()
        for place in self._broker.places:
            name = f"{place.tenant.pod.uid}_{place.tenant.container}"
            names.add(name)
            if name in self._slots or any(True for _ in place.known()):
                self._write(name, self._region(place))
        self._slots = {name: filled for name, filled in self._slots.items() if name in names}
        with contextlib.suppress(OSError):  # not there yet, or not to be read: no reason for the agent to end
            for folder in self._root.iterdir():
                if folder.name not in names and (folder / NAME).is_file():
                    self._remove(folder)

    def _write(self, name: str, region: Region) -> None:
        """In place, since the monitor maps the file: the magic number, which makes it valid, comes last."""
        folder = self._root / name
        filled = min(len(region.processes), PROCESSES)
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            file = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            with contextlib.closing(os.fdopen(file, "wb", buffering=0)):
                os.ftruncate(file, BYTES)
                os.pwrite(file, region.slots(max(filled, self._slots.get(name, PROCESSES))), PROCESSES_AT)
                os.pwrite(file, region.tail(), TAIL_AT)
                os.pwrite(file, region.head(), 0)
        except OSError as fault:
            if name not in self._failing:
                log.error(
                    "HAMi's monitor cannot be shown a container", extra={"folder": str(folder), "why": str(fault)}
                )
            self._failing.add(name)
            return
        self._failing.discard(name)
        self._slots[name] = filled

    def _remove(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # the monitor tidies up as well
            (folder / NAME).unlink()
            folder.rmdir()

    def _processes(self, place: Place, sessions: Sequence[Session], now: float) -> tuple[RegionProcess, ...]:
        """The monitor adds up the time of processes: where NVML alone knows of the container's, the first has all."""
        times = [
            [100 * min(share.charged(one, index, now), 1.0) for index in range(len(place.cards))] for one in sessions
        ]
        for index in range(len(place.cards)):
            had = share.of_place(place, index, self._look, now)
            if had is not None and not had.charged and times:
                times[0][index] = had.percent
        return tuple(_process(one, own) for one, own in zip(sessions, times, strict=True))

    def _region(self, place: Place) -> Region:
        cards, now = place.cards, self._clock()
        sessions = list(place.known())
        last = max((usage.launched_ns for one in sessions for usage in one.usage.values()), default=0) / 1e9
        return Region(
            cards=tuple(RegionCard(card.uuid, (card.mem_mib or 0) << 20, card.core_percent or 100) for card in cards),
            processes=self._processes(place, sessions, now),
            priority=place.file.policy.priority if place.file.policy is not None else 1,
            active=last > 0 and now - last < ACTIVE_S,
            last_kernel_s=int(self._wall() - (now - last)) if last > 0 else 0,
        )


def _process(session: Session, times: Sequence[float]) -> RegionProcess:
    uses = tuple(_use(session, index, round(percent)) for index, percent in enumerate(times))
    return RegionProcess(session.hello.pid if session.hello is not None else 0, session.peer.pid, uses)


def _use(session: Session, index: int, percent: int) -> RegionUse:
    held = session.usage[index].held_bytes if index in session.usage else (0,) * len(KINDS)
    context, module = held[_CONTEXT], held[_MODULE]
    return RegionUse(context, module, sum(held) - context - module, percent)
