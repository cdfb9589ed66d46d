"""Processes of pods that use a card and have not registered: told of, and ended where the administrator wants that.

One that is seen for a moment may be about to register, so it takes some looks in a row. Part of the look from outside
(`look`), which says what NVML shows.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct

from hami.agent.broker.allowance import Allowance
from hami.agent.broker.evader import described
from hami.agent.broker.place import TOLD, Place
from hami.agent.broker.process import began, pod_uid
from hami.agent.broker.server import Broker
from hami.model.ask import PodRef
from hami.model.errors import HamiError
from hami.vendors.nvidia.worker import Worker

log = logging.getLogger(__name__)
DESCRIBE_WITHIN_S = 2.0
"""All of them together: many processes that cannot be looked into must not put off that they are stopped."""
PATIENCE = 3
"""Looks in a row that must show the same before anything is said."""
Action = Literal["report", "stop"]
TellPod = Callable[[PodRef, str, str], None]
"""Tells people: pod, reason and message of a warning."""
Stop = Callable[[int, Place], None]
"""Ends a process, by pid, if it is still of that container's pod."""
Shown = Mapping[str, Mapping[int, int]]
"""Bytes by pid by card, as NVML shows them; -1: it does not tell how many."""
Key = tuple[int, int, str]
"""Of a stranger: pid, start and card."""


class Stranger(Struct, frozen=True):
    """A process of a pod on a card that has not registered. `place`: its pod has a slice there."""

    pid: int
    began: int
    """With the pid it is one process: another may come by the number."""
    card: str
    pod_uid: str
    place: Place | None

    @property
    def key(self) -> Key:
        return self.pid, self.began, self.card


class Strangers:
    """`proc` is where pids of the host are found; `clock` is the look's, seconds."""

    def __init__(
        self, broker: Broker, tell: TellPod, proc: Path, *, action: Action, clock: Callable[[], float]
    ) -> None:
        self._broker = broker
        self._tell = tell
        self._action = action
        self._proc = proc
        self._clock = clock
        self._seen: dict[Key, int] = {}
        """In how many looks in a row."""
        self._told = Allowance(*TOLD, clock())
        """Lines of the log about pods that we have no place of."""
        self._described: dict[int, str] = {}
        self._describer = Worker("evaders")
        self.unregistered = 0
        """Processes of sliced containers that use a card and have not registered, at the last look."""
        self.orphaned = 0
        """Likewise, processes of pods that have no slice there: their pod is gone, or never asked for one."""

    async def describe(self) -> None:
        """Those that the next look may be the last for. A process that cannot be looked into is told of as it is."""
        due = {pid for (pid, _, _), times in self._seen.items() if times == PATIENCE - 1}
        self._described = {}
        clock = asyncio.get_running_loop().time
        until = clock() + DESCRIBE_WITHIN_S
        for pid in due:
            left = until - clock()
            if left <= 0:
                break
            with contextlib.suppress(HamiError):
                self._described[pid] = await self._describer.run(partial(described, pid, self._proc), timeout=left)

    def judge(self, shown: Shown, *, settled: bool, stop: Stop) -> None:
        """Once a look. Before all is `settled` nobody is counted: who is there then is told of as anybody."""
        found = self._found(shown)
        self.unregistered = len({one.pid for one in found if one.place is not None})
        self.orphaned = len({one.pid for one in found if one.place is None})
        if not settled:
            return
        self._seen = {one.key: self._seen.get(one.key, 0) + 1 for one in found}
        for one in found:
            times = self._seen[one.key]
            if times == PATIENCE:
                self._report(one)
            if times >= PATIENCE and self._action == "stop" and one.place is not None:
                stop(one.pid, one.place)

    def _found(self, shown: Shown) -> list[Stranger]:
        known = {session.peer.pid for session in self._broker.sessions()}
        found = []
        for card, pids in shown.items():
            for pid in pids.keys() - known:
                uid = pod_uid(pid, self._proc)
                if uid is not None:
                    found.append(Stranger(pid, began(pid, self._proc), card, uid, self._place_of(uid, card)))
        return found

    def _place_of(self, uid: str, card: str) -> Place | None:
        here = (place for place in self._broker.places if place.tenant.pod.uid == uid)
        return next((place for place in here if any(one.uuid == card for one in place.cards)), None)

    def _report(self, one: Stranger) -> None:
        what = self._described.get(one.pid) or "statically linked, musl, or without the library"
        place = one.place
        if place is None:  # no pod of ours to tell; it may be a monitor's, so it is never ended
            told = {"pod_uid": one.pod_uid, "pid": one.pid, "card": one.card, "what": what}
            if self._told.take(self._clock()):
                log.warning("a process of a pod without a slice uses a shared card", extra=told)
            return
        text = (
            f"process {one.pid} ({what}) uses card {one.card} and has not registered: it is not held to the slice; "
            + ("it is being stopped" if self._action == "stop" else "--unregistered stop would stop it")
        )
        where = {"pod": str(place.tenant.pod), "pid": one.pid, "card": one.card, "what": what}
        if place.told.take(self._clock()):
            log.warning("unregistered process", extra=where)
        self._tell(place.tenant.pod, "UnregisteredProcess", text)
