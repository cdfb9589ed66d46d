"""What a card policy sees and what it is: the one signature of this folder."""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from hami.model.card import Card
from hami.plan.snapshot import Links, Use


class Candidate(Struct, frozen=True):
    """A card that accepts the ask."""

    position: int
    """In the node's list of cards."""
    card: Card
    use: Use
    """What is taken of it already, by others and by earlier containers of the pod."""
    score: float
    """How full the card would be with this ask (`exact.score.card`)."""
    loss: int = 0
    """Of a card in MIG mode: MiB by which the largest instance it could still take becomes smaller."""


Sets = Callable[[Sequence[Candidate], int, Links], Iterator[Sequence[Candidate]]]
"""All sets of so many of these candidates (which come preferred first), the preferred set first."""


class CardPolicy(Struct, frozen=True):
    """`key` sorts candidates, the lowest first; None leaves the order to others in the chain."""

    name: str
    key: Callable[[Candidate], float] | None = None
    idle_only: bool = False
    """Only cards nobody uses are accepted."""
    sets: Sets | None = None
    """Cards are chosen as a set, not one by one; the order of the keys then breaks ties."""
