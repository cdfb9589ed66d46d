"""What part of a card's time a container had, and whose word that is: what metrics and HAMi's monitor are told.

What its launches were charged goes first. Where they are not charged, NVML's samples of its processes stand for it
(`load`); where those are not to be had either, nobody knows.
"""

from msgspec import Struct

from hami.agent.broker.load import always_charged
from hami.agent.broker.look import Look
from hami.agent.broker.place import Place
from hami.agent.broker.session import Session

STALE_S = 2.5
"""The library tells once a second while something changes: silence for longer is idleness."""


class Share(Struct, frozen=True):
    """Percent of the last second; `charged`: by its launches, else by NVML."""

    percent: float
    charged: bool


def charged(session: Session, card: int, now: float) -> float:
    """GPU seconds a second that one process's launches on its card of that number were charged, of late."""
    heard = card in session.heard and now - session.heard[card] < STALE_S
    return session.rates.get(card, 0.0) if heard else 0.0


def of_place(place: Place, card: int, look: Look, now: float) -> Share | None:
    """Of one of the container's cards."""
    limit = place.cards[card]
    rate = sum(charged(session, card, now) for session in place.known())
    if rate > 0 or always_charged(place, limit):
        return Share(100 * min(rate, 1.0), charged=True)
    seen = look.seen_percent.get((place.tenant.key, limit.uuid))
    return None if seen is None else Share(seen, charged=False)
