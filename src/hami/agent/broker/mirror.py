"""What containers use, written where HAMi's vGPUmonitor looks and in its form: a file for each, never read by us.

    <hook>/vgpu/containers/<pod uid>_<container>/mirror.cache

It is an export. The monitor may write into it as it does for its own library; limits and turns come from elsewhere.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from hami.agent.broker.place import Place
from hami.agent.broker.server import Broker
from hami.agent.broker.session import Session
from hami.agent.broker.usage import STALE_S
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
        root: Path,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._broker, self._root, self._clock, self._wall = broker, root, clock, wall
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

    def _region(self, place: Place) -> Region:
        cards, now = place.cards, self._clock()
        sessions = list(place.known())
        last = max((usage.launched_ns for one in sessions for usage in one.usage.values()), default=0) / 1e9
        return Region(
            cards=tuple(RegionCard(card.uuid, (card.mem_mib or 0) << 20, card.core_percent or 100) for card in cards),
            processes=tuple(_process(one, len(cards), now) for one in sessions),
            priority=place.file.policy.priority if place.file.policy is not None else 1,
            active=last > 0 and now - last < ACTIVE_S,
            last_kernel_s=int(self._wall() - (now - last)) if last > 0 else 0,
        )


def _process(session: Session, cards: int, now: float) -> RegionProcess:
    uses = tuple(_use(session, index, now) for index in range(cards))
    return RegionProcess(session.hello.pid if session.hello is not None else 0, session.peer.pid, uses)


def _use(session: Session, index: int, now: float) -> RegionUse:
    usage = session.usage.get(index)
    if usage is None:
        return RegionUse()
    context, module = usage.held_bytes[_CONTEXT], usage.held_bytes[_MODULE]
    heard = now - session.heard[index] < STALE_S
    percent = round(100 * min(session.rates.get(index, 0.0), 1.0)) if heard else 0
    return RegionUse(context, module, sum(usage.held_bytes) - context - module, percent)
