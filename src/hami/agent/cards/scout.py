"""Looks for the node's cards, again and again, and keeps the inventory true.

One loop: read the configuration if it changed, scan, publish. Whatever the driver
does, it goes on: a card that stops answering stays registered, as a sick one, so
that its pods' shares are still counted; a driver that stops answering makes all
cards sick. Runs the driver's calls in their thread and knows no Kubernetes.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from hami.agent.cards.discover import Scan, scan
from hami.agent.cards.inventory import Found, Inventory, LeftOut
from hami.agent.cards.links import Joined, joined
from hami.agent.cards.nodeconfig import NodeConfig
from hami.model.errors import HamiError, Retry, Unavailable
from hami.model.ids import CardId
from hami.vendors.nvidia.nvml import DriverReplaced, Nvml
from hami.vendors.nvidia.worker import Worker

log = logging.getLogger(__name__)
Tell = Callable[[Literal["Normal", "Warning"], str, str], None]
"""Tells people: kind, reason and message of an event about the node."""
SOURCE = "scan"
RELINK = 20
"""Looks after which the cards' links are asked again though the cards are the same: a link can fail."""
GIVE_UP = 30.0
"""Seconds without a first scan after which the node is said to have no cards."""


class Scout:
    """Keeps `inventory` true. Times in seconds; `stuck` is how long a scan may take before its cards count as sick."""

    def __init__(
        self,
        nvml: Nvml,
        worker: Worker,
        config: NodeConfig,
        inventory: Inventory,
        *,
        sysfs: Path = Path("/sys"),
        interval: float = 30.0,
        retry: float = 5.0,
        stuck: float = 20.0,
        tell: Tell = lambda kind, reason, message: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._worker = worker
        self._config = config
        self._inventory = inventory
        self._sysfs = sysfs
        self._interval = interval
        self._retry = retry
        self._stuck = stuck
        self._tell = tell
        self._clock = clock
        self._began = clock()
        self._open = False
        self._last: dict[CardId, Found] = {}
        self._told: frozenset[str] = frozenset()
        self._joined: tuple[frozenset[CardId], Joined] = (frozenset(), Joined())
        self._looks = 0
        self._uneven: tuple[tuple[CardId, CardId], ...] = ()

    async def run(self) -> None:
        """Until cancelled. Raises DriverReplaced, which only a new process can cure."""
        while True:
            good = await self.once()
            await asyncio.sleep(self._interval if good else self._retry)

    async def once(self) -> bool:
        """One look. False if the driver did not give it, or a card's answer was missing."""
        self._config.refresh()
        try:
            seen = await self._worker.run(self._scan, timeout=self._stuck)
        except DriverReplaced:
            raise
        except HamiError as fault:
            self._without_scan(fault)
            return False
        self._inventory.problem = None
        self._publish(seen)
        return not any(entry.fault and entry.id is None for entry in seen.left_out)

    def _scan(self) -> Scan:
        """In the driver's thread."""
        if not self._open:
            self._nvml.open()
            self._open = True
        try:
            seen = scan(self._nvml, self._config.rules, self._sysfs)
            self._join(seen)
            return seen
        except HamiError as fault:
            # A driver that went away comes back as another one: begin anew with it.
            if fault.retry is Retry.LATER:
                self._nvml.close()
                self._open = False
            raise

    def _join(self, seen: Scan) -> None:
        """In the driver's thread: how the cards are linked, when it may have changed."""
        ids = frozenset(entry.card.id for entry in seen.found)
        self._looks += 1
        if ids != self._joined[0] or self._looks % RELINK == 0:
            devices = {}
            for card in sorted(ids):
                with contextlib.suppress(Unavailable):  # gone this moment: the next look finds out
                    devices[card] = self._nvml.device_by_uuid(card)
            self._joined = ids, joined(self._nvml, devices)

    # -- what a scan means -----------------------------------------------------------------

    def _publish(self, seen: Scan) -> None:
        silent = self._silent(seen)
        gone = [entry for entry in seen.left_out if entry not in silent.values()]
        for card in (entry.card for entry in seen.found):
            if self._inventory.mark_well(card.id, SOURCE):
                self._tell("Normal", "CardHealthy", f"card {card.id} answers again")
        found = [*seen.found, *(self._last[card_id] for card_id in silent)]
        changed = self._inventory.publish(found, gone, self._joined[1].links)
        for card_id, entry in silent.items():
            self._hold_back(self._last[card_id], entry.reason)
        self._last = {entry.card.id: entry for entry in found}
        self._tell_left_out(gone)
        self._tell_uneven()
        if changed:
            log.info("cards", extra={"offered": len(found), "left_out": len(gone)})

    def _silent(self, seen: Scan) -> dict[CardId, LeftOut]:
        """Cards that we know and that gave no answer now. Those an administrator filters are not among them."""
        here = {entry.card.id for entry in seen.found}
        by_id = {entry.id: entry for entry in seen.left_out if entry.id is not None}
        by_index = {entry.index: entry for entry in seen.left_out if entry.id is None}
        silent = {}
        for card_id, known in self._last.items():
            entry = by_id.get(card_id) or by_index.get(known.card.index)
            if card_id not in here and entry is not None and entry.fault:
                silent[card_id] = entry
        return silent

    def _hold_back(self, entry: Found, reason: str) -> None:
        if self._inventory.mark_sick(entry.card.id, SOURCE, reason):
            log.error("card does not answer", extra={"card": entry.card.id, "why": reason})
            self._tell("Warning", "CardUnhealthy", f"card {entry.card.id} (index {entry.card.index}): {reason}")

    def _tell_left_out(self, entries: Iterable[LeftOut]) -> None:
        now = frozenset(
            f"card {entry.id or 'unknown'} at index {entry.index} is not offered: {entry.reason}"
            for entry in entries
            if entry.fault
        )
        for message in sorted(now - self._told):
            log.error("card left out", extra={"why": message})
            self._tell("Warning", "CardLeftOut", message)
        self._told = now

    def _tell_uneven(self) -> None:
        uneven = self._joined[1].uneven
        if uneven != self._uneven:
            self._uneven = uneven
            for one, two in uneven:
                message = f"the driver links card {one} to {two} otherwise than back: the pair counts as not linked"
                self._tell("Warning", "AsymmetricGPUP2PLink", message)

    def _without_scan(self, fault: HamiError) -> None:
        """No word of any card: those we know are held back, of none there is nothing to offer."""
        if self._inventory.problem != str(fault):
            log.error("cards cannot be looked at", extra={"why": str(fault)})
            self._tell("Warning", "CardsUnknown", str(fault))
        self._inventory.problem = str(fault)
        for entry in self._last.values():
            self._hold_back(entry, str(fault))
        if not self._inventory.scanned and self._clock() - self._began >= GIVE_UP:
            self._inventory.publish(())
