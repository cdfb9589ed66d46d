"""What NVML shows of each card, held against who has registered: once a second, from outside the containers.

A process of a sliced container that uses its card without the library (`strangers`), or takes memory past it, is seen
here, told of, and ended where the administrator wants that. Each process also hears what NVML shows of it: inside a pid
namespace it cannot see that.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path

from hami.agent.broker import load
from hami.agent.broker.lawful import Lawful
from hami.agent.broker.overtime import Overtime
from hami.agent.broker.place import Place
from hami.agent.broker.process import began, pod_uid, ticks
from hami.agent.broker.server import Broker
from hami.agent.broker.session import Session
from hami.agent.broker.strangers import PATIENCE, Action, Shown, Strangers, TellPod
from hami.model.errors import HamiError
from hami.vendors.nvidia.nvml import Nvml
from hami.vendors.nvidia.worker import Worker
from hami.wire.broker import KINDS, Seen

log = logging.getLogger(__name__)
LOOK_S = 1.0
LOOK_WITHIN_S = 10.0
GRACE_S = 30.0
"""After our start: processes of before register again, with pauses of up to 10 s."""
UNATTRIBUTED = KINDS.index("unattributed")
"""Of what a process tells: what NVML shows beyond all that its library gave."""
TELLS_WITHIN_S = 5.0
"""A library says what it holds a second after it has registered; not all of them are awake then."""
SLACK_BYTES = 64 << 20
"""A context's size is known only when it is there."""
NO_LOADS: load.Loads = {}


class Look:
    """The round. `proc` is where pids of the host are found."""

    def __init__(
        self,
        broker: Broker,
        nvml: Nvml,
        worker: Worker,
        *,
        tell: TellPod,
        action: Action = "report",
        exceeded: Action = "report",
        proc: Path = Path("/proc"),
        grace: float = GRACE_S,
        since: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`since`: our start, in clock ticks since the machine's, as processes have theirs; now, if not given."""
        self._broker = broker
        self._nvml = nvml
        self._worker = worker
        self._tell = tell
        self._exceeded = exceeded
        self._proc = proc
        self._grace = grace
        self._clock = clock
        self._strangers = Strangers(broker, tell, proc, action=action, clock=clock)
        self._over: dict[tuple[str, str], int] = {}
        self._lawful = Lawful(SLACK_BYTES)
        self._overtime = Overtime()
        self._heard: set[tuple[Session, int]] = set()
        """Who has told of which card."""
        self._of_before: set[tuple[int, int, int]] = set()
        """Of them those that were there before us, by pid and start."""
        self._since = ticks() if since is None else since
        self.exceeded = 0
        """Slices that hold more than their limit by NVML, at the last look."""
        self.stopped = 0
        self.seen_bytes: dict[tuple[str, str], int] = {}
        """By grant and card: what NVML shows of its processes; not there where it cannot tell."""
        self.seen_percent: dict[tuple[str, str], float] = {}
        """Likewise, of the card's time; only where NVML may know of more than was charged."""
        self.looked = clock()
        """When all of this was so."""

    @property
    def unregistered(self) -> int:
        """Processes of sliced containers that use a card and have not registered, at the last look."""
        return self._strangers.unregistered

    @property
    def orphaned(self) -> int:
        """Likewise, processes of pods that have no slice there: their pod is gone, or never asked for one."""
        return self._strangers.orphaned

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.once()

    async def once(self) -> None:
        held = [(place, card) for place in self._broker.places for card in place.cards]
        cards = sorted({card.uuid for _, card in held})
        busy = {card.uuid for place, card in held if load.told(place)}
        if not cards:
            self._judge({})
            return
        try:
            shown, loads = await self._worker.run(lambda: self._read(cards, busy), timeout=LOOK_WITHIN_S)
        except HamiError as fault:
            log.debug("cards cannot be looked at", extra={"why": str(fault)})
            self.seen_bytes, self.seen_percent = {}, {}
            self._note_given()
            return
        await self._strangers.describe()
        self._judge(shown, loads)

    def _read(self, cards: Iterable[str], busy: Container[str]) -> tuple[Shown, load.Loads]:
        """In the driver's thread, loads of `busy` alone. A card that does not answer is left out."""
        shown: dict[str, dict[int, int]] = {}
        loads: dict[str, dict[int, float]] = {}
        for uuid in cards:
            try:
                device = self._nvml.device_by_uuid(uuid)
                listed = self._nvml.processes(device)
                shown[uuid] = {one.pid: -1 if one.mem_bytes is None else one.mem_bytes for one in listed}
                if uuid in busy:
                    loads[uuid] = load.read(self._nvml, device)
            except HamiError as fault:
                log.debug("a card cannot be looked at", extra={"card": uuid, "why": str(fault)})
        return shown, loads

    def _judge(self, shown: Shown, loads: load.Loads = NO_LOADS) -> None:
        """1. tell each process of itself, 2. who has not registered, 3. who holds too much, 4. who was busy,
        5. longer than he may."""
        self._tell_sessions(shown)
        self._strangers.judge(shown, settled=self._settled(), stop=self._stop)
        self._judge_limits(shown)
        self._note_loads(loads)
        self._judge_time(loads)
        self.looked = self._clock()

    # 1

    def _tell_sessions(self, shown: Shown) -> None:
        for place in self._broker.places:
            sessions = tuple(place.known())
            own = {session.peer.pid for session in sessions}
            for index, card in enumerate(place.cards):
                on_card = shown.get(card.uuid)
                if on_card is None:
                    continue
                others = len(on_card) - sum(pid in on_card for pid in own)
                for session in sessions:
                    self._broker.tell_seen(place, session, Seen(index, on_card.get(session.peer.pid, -1), others))

    # 2, of which `strangers` has the most, and 3

    def _stop(self, pid: int, place: Place) -> None:
        """Looked at once more with its pidfd in hand: a pid may be another process's by now."""
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if pod_uid(pid, self._proc) == place.tenant.pod.uid:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                self.stopped += 1
                log.warning("process stopped", extra={"pod": str(place.tenant.pod), "pid": pid})
        except OSError as fault:
            log.error("cannot stop a process", extra={"pid": pid, "why": str(fault)})
        finally:
            os.close(handle)

    def _judge_limits(self, shown: Shown) -> None:
        over: dict[tuple[str, str], int] = {}
        self.seen_bytes = {}
        self._note_given()
        for place in self._broker.places:
            for index, card in enumerate(place.cards):
                key = place.tenant.key, card.uuid
                held = _held(place, shown.get(card.uuid))
                if held is None:
                    continue
                self.seen_bytes[key] = held
                if card.mem_mib is not None and held > (card.mem_mib << 20) + SLACK_BYTES:
                    over[key] = self._over.get(key, 0) + 1
                    if over[key] == PATIENCE:
                        self._report_excess(place, f"{held >> 20} MiB of {card.uuid}, its limit is {card.mem_mib}")
                    if over[key] >= PATIENCE and self._exceeded == "stop":
                        self._stop_taker(place, index, card.mem_mib << 20, shown.get(card.uuid, {}))
        self._over = over
        self.exceeded = len(over)

    def _note_given(self) -> None:
        """By the libraries' word, whether NVML answers or not: it may be silent for just so long as we learn."""
        for place in self._broker.places:
            for index, card in enumerate(place.cards):
                if card.mem_mib is not None:
                    key = place.tenant.key, card.uuid
                    settled = self._settled() and not self._late(place, index)
                    self._lawful.look(key, card.mem_mib << 20, _given(place, index), settled=settled)
        self._heard &= {(session, card) for session in self._broker.sessions() for card in session.usage}
        self._lawful.keep((place.tenant.key, card.uuid) for place in self._broker.places for card in place.cards)

    def _late(self, place: Place, card: int) -> bool:
        """Whether a process of before our start tells of the card for the first time: it was not awake until now.

        Once for each process, which may connect anew as often as it likes.
        """
        new = {(one, card) for one in place.known() if card in one.usage} - self._heard
        self._heard |= new
        old = {
            (one.peer.pid, since, card)
            for one, _ in new
            if 0 < (since := began(one.peer.pid, self._proc)) < self._since
        }
        late = not old <= self._of_before
        self._of_before |= old
        return late

    def _stop_taker(self, place: Place, card: int, limit: int, on_card: Mapping[int, int]) -> None:
        """End the process with the most memory that its library does not account for.

        Nobody where the libraries account for more than the limit, as it was lowered under what they had given. Where
        it was not, somebody has told them that there is less than there is, and the one with the most memory goes. And
        nobody who may not yet have told what he holds: right after our start, or after he has connected again.
        """
        if not self._settled():
            return
        given = {session.peer.pid: given_by_library(session, card) for session in place.known()}
        if self._lawful.passed((place.tenant.key, place.cards[card].uuid), sum(given.values())):
            self._stop(max(given, key=lambda pid: on_card.get(pid, 0)), place)
            return
        new = {one.peer.pid for one in place.known() if self._is_new(one, card)}
        unknown = {pid: on_card.get(pid, 0) - size for pid, size in given.items() if pid not in new}
        taker = max(unknown, key=lambda pid: unknown[pid], default=0)
        if sum(given.values()) <= limit and unknown.get(taker, 0) > SLACK_BYTES:
            self._stop(taker, place)

    def _is_new(self, session: Session, card: int) -> bool:
        return card not in session.usage and self._clock() - session.since < TELLS_WITHIN_S

    def _settled(self) -> bool:
        """Whether all who were there before us have had time to register."""
        return self._clock() - self._broker.began >= self._grace

    def _report_excess(self, place: Place, what: str) -> None:
        text = f"container {place.tenant.container} has {what}"
        log.warning("slice exceeded", extra={"pod": str(place.tenant.pod), "why": text})
        self._tell(place.tenant.pod, "SliceExceeded", text)

    # 4

    def _note_loads(self, loads: load.Loads) -> None:
        self.seen_percent = {}
        for place in self._broker.places:
            for card in place.cards:
                percent = load.of_place(place, card, loads) if load.wanted(place, card) else None
                if percent is not None:
                    self.seen_percent[place.tenant.key, card.uuid] = percent

    # 5

    @property
    def overtime(self) -> int:
        """Slices that have had more of their card's time than their limit, by NVML, for half a minute."""
        return len(self._overtime.over)

    def _judge_time(self, loads: load.Loads) -> None:
        """Only of those whom their limit binds at all times. A card that did not answer begins anew."""
        held = {}
        bound = {}
        for place in self._broker.places:
            for card in place.cards:
                if load.always_charged(place, card) and (percent := load.of_place(place, card, loads)) is not None:
                    key = place.tenant.key, card.uuid
                    held[key], bound[key] = (percent, card.core_percent), place
        for key in self._overtime.look(held):
            percent, limit = self._overtime.over[key], held[key][1]
            self._report_excess(bound[key], f"{percent:g} % of the time of {key[1]}, its limit is {limit}")


def _held(place: Place, on_card: Mapping[int, int] | None) -> int | None:
    """Bytes of the container's processes; None where the card, or our pid namespace, does not tell."""
    pids = {session.peer.pid for session in place.known()}
    if on_card is None or 0 in pids:
        return None
    sizes = [on_card.get(pid, 0) for pid in pids]
    return None if -1 in sizes else sum(sizes)


def _given(place: Place, card: int) -> int:
    return sum(given_by_library(session, card) for session in place.known())


def given_by_library(session: Session, card: int) -> int:
    """Bytes of a card that the process's library gave it, by its own word."""
    usage = session.usage.get(card)
    return 0 if usage is None else sum(usage.held_bytes) - usage.held_bytes[UNATTRIBUTED]
