"""Watches the cards' own reports: an Xid holds a card back, a probe that finds it sound gives it back.

Two loops over one inventory. The first waits for events in a thread of its own, the
second asks cards that are held back how they are. What they find reaches
kubelet and the scheduler through the inventory; people read it in Node events and
`families`. Knows NVML's protocol, no Kubernetes.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator

from hami.agent.cards.inventory import Inventory
from hami.agent.cards.scout import Tell
from hami.agent.cards.xids import XidRules, describe
from hami.model.card import Card
from hami.model.errors import HamiError, Unavailable
from hami.model.ids import CardId
from hami.observe.exposition import Family, Sample
from hami.vendors.nvidia.nvml import EVENT_XID, Device, Event, EventSet, NotSupported, Nvml, Timeout
from hami.vendors.nvidia.worker import Worker

log = logging.getLogger(__name__)
XID = "xid"
WAIT_MS = 5000
"""One wait for events. NVML cannot be interrupted, so this also bounds how late a new card is watched."""

HEALTHY = Family("hami_host_gpu_healthy", "1 if the card takes new pods, 0 if its health holds it back.")
XIDS = Family(
    "hami_host_gpu_xid_total", "Xids the driver has reported for the card since the agent started.", "counter"
)


class Watch:
    """The health of one node's cards. Times in seconds.

    `events` and `probes` are two threads: a wait for events keeps its own busy.
    `quiet` is how long a card must be without another Xid before a probe may give it back.
    """

    def __init__(
        self,
        nvml: Nvml,
        events: Worker,
        probes: Worker,
        inventory: Inventory,
        rules: XidRules,
        *,
        quiet: float = 60.0,
        probe_interval: float = 10.0,
        retry: float = 5.0,
        tell: Tell = lambda kind, reason, message: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._events = events
        self._probes = probes
        self._inventory = inventory
        self._rules = rules
        self._quiet = quiet
        self._probe_interval = probe_interval
        self._retry = retry
        self._tell = tell
        self._clock = clock
        self._last_xid: dict[CardId, float] = {}
        self._watched: EventSet | None = None
        """Freed when the next one is made: only then is nobody waiting on it."""
        self._deaf: set[CardId] = set()
        """Cards that have no events to watch; said once."""
        self.seen: Counter[tuple[str, int]] = Counter()
        """Events by card and Xid, ignored ones too."""

    async def run(self) -> None:
        """Both loops, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if not self._rules.off:
                tasks.create_task(self._listen())
            tasks.create_task(self._recover())

    def samples(self, node: str) -> Iterator[Sample]:
        """Metrics as of now, in the names of HAMi's host metrics."""
        for card in self._inventory.cards():
            yield HEALTHY, _labels(node, card), float(card.healthy)
        for (uuid, xid), times in sorted(self.seen.items()):
            yield XIDS, {"node": node, "device_uuid": uuid, "xid": str(xid)}, float(times)

    # -- events --------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Watch the cards there are; begin anew when they change, or when the driver has a fault."""
        changes = self._inventory.changes()
        await anext(changes)
        while True:
            ids = self._ids()
            if not ids:
                await anext(changes)
                continue
            try:
                await self._watch(ids)
            except HamiError as fault:
                log.warning("events cannot be watched", extra={"why": str(fault)})
                await asyncio.sleep(self._retry)
                await self._examine_all()

    async def _watch(self, ids: frozenset[CardId]) -> None:
        """Events of these cards until there are others. Raises the driver's faults."""
        watched = await self._events.run(lambda: self._register(ids))
        while self._ids() == ids:
            try:
                event = await self._events.run(lambda: self._nvml.wait(watched, WAIT_MS), timeout=60.0)
            except Timeout:
                continue
            self.take(event)

    def _register(self, ids: frozenset[CardId]) -> EventSet:
        """In the events' thread. A card that cannot be watched does not keep others from it."""
        if self._watched is not None:
            former, self._watched = self._watched, None
            self._nvml.free(former)
        devices: list[tuple[Device, int]] = []
        for card_id in sorted(ids):
            try:
                device = self._nvml.device_by_uuid(card_id)
                if self._nvml.supported_events(device) & EVENT_XID:
                    devices.append((device, EVENT_XID))
            except NotSupported as fault:
                self._say_deaf(card_id, str(fault))
            except Unavailable as fault:
                log.warning("card cannot be watched", extra={"card": card_id, "why": str(fault)})
        self._watched = self._nvml.event_set(devices)
        return self._watched

    async def _examine_all(self) -> None:
        """What happened while nobody listened cannot be heard any more; what it left behind can be seen."""
        for card in self._inventory.cards():
            ailment = await self._ailment(card.id)
            if ailment is None:
                continue
            self._last_xid[card.id] = self._clock()  # whoever said so first, it is ours to take back, too
            if self._inventory.mark_sick(card.id, XID, ailment):
                log.error("card is unhealthy", extra={"card": card.id, "why": ailment})
                self._tell("Warning", "CardUnhealthy", f"card {card.id} (index {card.index}): {ailment}")

    def _say_deaf(self, card_id: CardId, why: str) -> None:
        if card_id not in self._deaf:
            self._deaf.add(card_id)
            log.warning("card reports no health events", extra={"card": card_id, "why": why})

    def take(self, event: Event) -> None:
        """One event. Of a card whose UUID cannot be read nobody knows which: all are held back until probed."""
        if event.kind != EVENT_XID:
            return
        self.seen[event.uuid or "unknown", event.value] += 1
        if not self._rules.matters(event.value):
            log.info("Xid of a program", extra={"card": event.uuid, "xid": event.value})
            return
        for card in self._inventory.cards():
            if event.uuid in (None, card.id):
                self._hold_back(card, event.value)

    def _hold_back(self, card: Card, xid: int) -> None:
        self._last_xid[card.id] = self._clock()
        if self._inventory.mark_sick(card.id, XID, describe(xid)):
            log.error("card is unhealthy", extra={"card": card.id, "xid": xid})
            message = f"card {card.id} (index {card.index}): {describe(xid)}; it takes no new pods until it is sound"
            self._tell("Warning", "CardUnhealthy", message)

    # -- recovery ------------------------------------------------------------------------

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(self._probe_interval)
            for card_id in list(self._last_xid):
                await self.probe(card_id)

    async def probe(self, card_id: CardId) -> None:
        """Give a card back if it has been quiet for long enough and is found sound."""
        if self._clock() - self._last_xid[card_id] < self._quiet:
            return
        ailment = await self._ailment(card_id)
        if ailment is not None:
            self._inventory.mark_sick(card_id, XID, ailment)
            return
        del self._last_xid[card_id]
        if self._inventory.mark_well(card_id, XID):
            log.info("card is healthy again", extra={"card": card_id})
            self._tell("Normal", "CardHealthy", f"card {card_id} is sound and takes pods again")

    async def _ailment(self, card_id: CardId) -> str | None:
        try:
            return await self._probes.run(lambda: examine(self._nvml, card_id))
        except HamiError as fault:
            return str(fault)

    def _ids(self) -> frozenset[CardId]:
        return frozenset(card.id for card in self._inventory.cards())


def examine(nvml: Nvml, card_id: CardId) -> str | None:
    """What ails a card, None if nothing. Raises the driver's fault where it does not answer. In the driver's thread."""
    device = nvml.device_by_uuid(card_id)
    nvml.name(device)
    with contextlib.suppress(NotSupported):  # boards that share the host's memory
        nvml.memory(device)
    try:
        action = nvml.recovery_action(device)
    except NotSupported:
        action = 0  # older drivers do not say; the rows below and the quiet time must do
    if action:
        return f"the driver asks for recovery action {ACTIONS.get(action, action)}"
    try:
        rows = nvml.remapped_rows(device)
    except NotSupported:
        return None
    if rows.failed:
        return "a broken memory row could not be replaced: the card must be exchanged"
    if rows.pending:
        return "a broken memory row is replaced at the next reset of the card"
    return None


ACTIONS = {1: "reset", 2: "node reboot", 3: "drain peers", 4: "drain and reset"}


def _labels(node: str, card: Card) -> dict[str, str]:
    return {"node": node, "device_index": str(card.index), "device_uuid": card.id, "device_type": card.model}
