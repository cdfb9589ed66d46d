"""The cards of this node as of now: written by discovery and health, read by everybody else in the agent.

Device plugins, the register annotation and the metrics all follow one
`Inventory`, so kubelet and the scheduler never hear different things of a card.
It lives in one event loop and must not know NVML, kubelet or the API server.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from hami.agent.cards.links import Links
from hami.model.card import Card
from hami.model.ids import CardId


class Found(Struct, frozen=True):
    """One card on this node: what is registered of it, and where it is on the host."""

    card: Card
    minor: int | None = None
    """N of its device node ``/dev/nvidiaN``; None where the driver does not tell."""
    pci_id: str = ""
    """As in sysfs, ``0000:07:00.0``."""


class LeftOut(Struct, frozen=True):
    """A card that is there and is not offered, and why."""

    index: int
    reason: str
    id: CardId | None = None
    """None when not even its UUID can be read."""
    fault: bool = True
    """False where the administrator wants it so (filterdevices)."""


class Inventory:
    """Holds the last scan and the health of its cards; readers never wait for a driver."""

    def __init__(self) -> None:
        self._found: dict[CardId, Found] = {}
        self._cards: tuple[Card, ...] = ()
        self._left_out: tuple[LeftOut, ...] = ()
        self._sick: dict[CardId, dict[str, str]] = {}
        self._withheld: str | None = None
        self._version = 0
        self._scanned = False
        self._links: Links = {}
        self._changed = asyncio.Event()
        self.problem: str | None = "the cards have not been looked at yet"
        """Why the list may be out of date; None when the last scan succeeded."""

    def cards(self) -> tuple[Card, ...]:
        """All offered cards, sorted by index, with `healthy` as health sees it now."""
        return self._cards

    @property
    def links(self) -> Links:
        """What the links between the cards are worth."""
        return self._links

    @property
    def scanned(self) -> bool:
        """Whether the list says anything: before that, no cards means that nothing is known."""
        return self._scanned

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Cards of the last scan that are not offered."""
        return self._left_out

    def minor(self, card_id: CardId) -> int | None:
        """N of the card's device node ``/dev/nvidiaN``; None if unknown or the card is not here."""
        found = self._found.get(card_id)
        return found.minor if found else None

    def found(self, card_id: CardId) -> Found | None:
        """The card with its place on the host."""
        return self._found.get(card_id)

    def sick(self) -> Mapping[CardId, str]:
        """Cards that are held back, with all reasons of their own."""
        return {card_id: "; ".join(reasons.values()) for card_id, reasons in self._sick.items()}

    def withhold(self, reason: str | None) -> bool:
        """Hold all cards back, those of later scans too, until it is None. True if readers were told of a difference.

        For what ails the node: the cards keep reasons of their own, and come back with those.
        """
        self._withheld = reason
        return self._refresh()

    def publish(self, found: Iterable[Found], left_out: Iterable[LeftOut] = (), links: Links | None = None) -> bool:
        """Replace the list by a new scan's; no `links` keeps those known. True if readers were told of a difference."""
        self._found = {entry.card.id: entry for entry in sorted(found, key=lambda entry: entry.card.index)}
        self._left_out = tuple(left_out)
        first, self._scanned = not self._scanned, True
        relinked = links is not None and links != self._links
        if links is not None:
            self._links = links
        return self._refresh(force=first or relinked)

    def mark_sick(self, card_id: CardId, source: str, reason: str) -> bool:
        """Hold a card back. True if it was well until now.

        Each source (``xid``, ``scan``, ...) has its own reason; a card is well when all have withdrawn theirs.
        """
        reasons = self._sick.setdefault(card_id, {})
        first = not reasons
        reasons[source] = reason
        if first:
            self._refresh()
        return first

    def mark_well(self, card_id: CardId, source: str) -> bool:
        """Withdraw a source's reason. True if that made the card well."""
        reasons = self._sick.get(card_id, {})
        if reasons.pop(source, None) is None or reasons:
            return False
        del self._sick[card_id]
        self._refresh()
        return True

    async def changes(self) -> AsyncIterator[None]:
        """Yields at once, then after each change of `cards()`. Changes a slow reader missed count as one."""
        seen = -1
        while True:
            if seen == self._version:
                await self._changed.wait()
            seen = self._version
            yield

    def _refresh(self, force: bool = False) -> bool:
        cards = tuple(self._judged(entry.card) for entry in self._found.values())
        if cards == self._cards and not force:
            return False
        self._cards = cards
        self._version += 1
        # Each change wakes those who wait on the old event; later waiters get the new one.
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    def _judged(self, card: Card) -> Card:
        healthy = card.healthy and card.id not in self._sick and self._withheld is None
        return card if healthy == card.healthy else replace(card, healthy=healthy)
