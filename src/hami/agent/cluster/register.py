"""Tells the scheduler of this node's cards: the register annotation and the handshake that proves we live.

Both go in one patch, every period and at once when a card changes, so whoever
takes the annotation away gets it back within a period. A node without cards
loses both. Knows the API server; what the cards are is the inventory's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping

from hami.agent.cards.inventory import Inventory
from hami.agent.cluster.handshake import report
from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import NotFound
from hami.model.errors import HamiError
from hami.wire import annotations as keys
from hami.wire import register
from hami.wire.objects import Node

log = logging.getLogger(__name__)


class Registrar:
    """Keeps one node's annotations as they should be. Times in seconds."""

    def __init__(
        self,
        kube: Kube,
        node: str,
        inventory: Inventory,
        *,
        annotation: str,
        links_annotation: str | None = None,
        period: float = 30.0,
        retry: float = 5.0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`annotation` and `links_annotation` are the vendor's keys for its cards and for what their links are
        worth (``hami.io/node-nvidia-register``, ``hami.io/node-nvidia-score``). `wall` gives Unix seconds."""
        self._kube = kube
        self._node = node
        self._inventory = inventory
        self._annotation = annotation
        self._links_annotation = links_annotation
        self._period = period
        self._retry = retry
        self._wall = wall
        self.problem: str | None = "not registered yet"
        """Why the scheduler may not know our cards as they are; None when it does."""

    async def run(self) -> None:
        """Until cancelled: after each change of the cards, each period, and soon after an error."""
        changes = self._inventory.changes()
        change = asyncio.ensure_future(_next(changes))
        good = True
        try:
            while True:
                await asyncio.wait({change}, timeout=self._period if good else self._retry)
                if change.done():
                    change = asyncio.ensure_future(_next(changes))
                good = await self.once()
        finally:
            change.cancel()

    async def once(self) -> bool:
        """Make the annotations true. False, with `problem` set, if the API server would not have it."""
        if not self._inventory.scanned:
            # No word yet is not the same as no cards: what an earlier process registered stays.
            return True
        try:
            await self._write()
        except HamiError as fault:
            why = str(fault)
            if isinstance(fault, NotFound):
                why = f"there is no Node {self._node}: is --node-name the name that kubelet registers under?"
            if self.problem != why:
                log.error("cards not registered", extra={"why": why})
            self.problem = why
            return False
        self.problem = None
        return True

    async def _write(self) -> None:
        cards = self._inventory.cards()
        if cards:
            written: dict[str, str | None] = {
                self._annotation: register.encode(cards),
                keys.HANDSHAKE: report(self._wall()),
            }
            if self._links_annotation:
                links = self._inventory.links
                written[self._links_annotation] = register.encode_scores(links) if links else None
            await self._patch(written)
            return
        # The handshake changes the object each time; a node that has nothing to say is only read.
        there = (await self._kube.get(paths.nodes(self._node), Node)).metadata.annotations or {}
        ours = {self._annotation, keys.HANDSHAKE, self._links_annotation} & there.keys()
        if ours:
            await self._patch({key: None for key in ours if key})

    async def _patch(self, annotations: Mapping[str, str | None]) -> None:
        await self._kube.patch(paths.nodes(self._node), {"metadata": {"annotations": annotations}}, "merge")


async def _next(changes: AsyncIterator[None]) -> None:
    await anext(changes)
