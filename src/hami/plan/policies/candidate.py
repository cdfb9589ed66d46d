"""What a card policy sees and what it is: the one signature of this folder."""

from collections.abc import Callable

from msgspec import Struct

from hami.plan.snapshot import CardState


class Candidate(Struct, frozen=True):
    """A card that fits, with what earlier containers of the pod take already on it."""

    position: int
    """In the node's list of cards."""
    state: CardState
    score: float
    """How full the card would be with this ask (`plan.score.card`)."""


class CardPolicy(Struct, frozen=True):
    """`key` sorts candidates, the lowest first; None leaves the order to others in the chain."""

    name: str
    key: Callable[[Candidate], float] | None = None
    idle_only: bool = False
    """Only cards nobody uses are accepted."""
