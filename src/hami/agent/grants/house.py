"""Keeping house: seats of pods that are gone, folders nobody uses, outcomes that were never told.

Runs after changes of the node's pods, not on a clock of its own: an idle node costs nothing.
"""

import asyncio
import logging

from hami.agent.bound import asking
from hami.agent.grants import recover, resize
from hami.agent.grants.allocate import Parts
from hami.agent.grants.match import by_pod, next_share
from hami.agent.kubelet.sight import Sight
from hami.model.ids import PodUid
from hami.wire import annotations as keys

log = logging.getLogger(__name__)
GATHER_S = 0.5
"""Changes come in bursts; one round serves all of them."""
SCAN_S = 1.0
"""To the next look at whether the cards are known by now."""
AGAIN_S = 5.0
"""After a round that a full or read-only disk has cut short."""


class House:
    """Told of each changed pod; tidies a moment later."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._changed = asyncio.Event()
        self._rebuilt = False
        self._told = ""
        """Why the last round was cut short."""

    def changed(self, _: PodUid) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER_S)
            self._changed.clear()
            try:
                await self.tidy()
                self._told = ""
            except OSError as fault:
                self._parts.unwritten()
                if str(fault) != self._told:
                    log.error("cannot tidy up", extra={"fault": str(fault)})
                self._told = str(fault)
                asyncio.get_running_loop().call_later(AGAIN_S, self._changed.set)

    async def tidy(self) -> None:
        """One round. Before all pods are known nothing is thrown away; before the cards are, nothing is judged.

        The order of a container's cards and their device nodes are part of what it was told.
        """
        if not self._parts.pods.synced:
            return
        if not self._parts.cards.scanned:
            asyncio.get_running_loop().call_later(SCAN_S, self._changed.set)
            await recover.forget(self._parts)
            return
        if not self._rebuilt:
            await self._rebuild()
        await recover.forget(self._parts)
        await resize.apply(self._parts)
        self.tell_granted()

    async def _rebuild(self) -> None:
        """Once: what an agent before us granted and no checkpoint of ours tells of."""
        kept = await recover.rebuild(self._parts)
        if kept is None:
            return
        if kept:
            log.warning("grants rebuilt from what kubelet keeps", extra={"count": kept})
        running = await recover.from_folders(self._parts)
        if running:
            log.warning("grants rebuilt from the folders of containers that run", extra={"count": running})
        recover.sweep(self._parts)
        self._rebuilt = True

    def tell_granted(self) -> None:
        """Pods that have all their cards while the cluster says that they wait: a restart lost the word."""
        seats = by_pod(self._parts.seats)
        for pod in asking(self._parts.pods.in_order()):
            waiting = pod.phase == keys.PHASE_ALLOCATING and pod.ref.uid in seats
            if waiting and next_share(pod, seats[pod.ref.uid], Sight()) is None:
                self._parts.outcome.granted(pod)
