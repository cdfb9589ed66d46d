"""Usage: what is really used, against what was granted. Read only, marked when stale."""

from msgspec import Struct

from hami.model.ids import CardId


class CardUsage(Struct, frozen=True):
    """Telemetry of one card, from its driver."""

    card: CardId
    mem_used_bytes: int
    busy_percent: int
    observed_at: float
    """Unix seconds. A reader that finds it old says so; it never guesses."""
