"""Some way to share a few wants of one card each out over the cards of one node: all are looked at, in bounded time.

The last resort of `exact.search`. `fleet.sharing` asks the same of thousands of nodes at once; where that says yes, a
way is found here.
"""

from collections.abc import Sequence

from hami.model.ask import ContainerKind
from hami.plan.exact.wants import Want

MOST_WANTS = 5
"""A card is tried with 31 sets of so many wants, beside 32 of those that cards before it serve."""


def simple(want: Want) -> bool:
    """Whether it is served by one card, which it keeps."""
    return want.kind is not ContainerKind.INIT and want.ask.cards == 1


def shared_out(held: Sequence[Sequence[int]], wants: int) -> list[int] | None:
    """The card of each want, as a place in `held`, which has the sets of wants that each card holds, a bit a want. None
    where there is no way."""
    ways: dict[int, tuple[tuple[int, int], ...]] = {0: ()}
    for place, sets in enumerate(held):
        for served, way in list(ways.items()):
            for more in sets:
                if not served & more:
                    ways.setdefault(served | more, (*way, (place, more)))
    every = ways.get((1 << wants) - 1)
    if every is None:
        return None
    return [next(place for place, served in every if served >> want & 1) for want in range(wants)]
