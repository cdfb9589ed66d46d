"""What `pack` compared on a node, as a table for people: seats and prices before and after a placement.

The numbers are those of the decision itself, in thousandths of a card; their sum is the node's score.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hami.plan.fleet.columns import Longs
from hami.plan.pack.demand import Shape
from hami.plan.pack.scale import LEVELS, RESIDUES, Scale
from hami.plan.words import spoken

Sides = tuple[NDArray[np.float32], float]
"""Seats by shape, and the worth of residues."""


class Seat(Struct, frozen=True):
    """How many more of a frequent shape of ask the node could take, and what that counts."""

    shape: str
    weight: float
    """Of one seat: how often the shape is asked times what it takes, more for several cards."""
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.weight * (self.after - self.before)


class Price(Struct, frozen=True):
    """What the free part of a card is worth by itself."""

    place: int
    """Of the card in its node, from 0."""
    free: int
    """Thousandths of the card."""
    worth: float
    free_after: int
    worth_after: float


class Aside(Struct, frozen=True):
    """Whether the node is set aside."""

    cards: int = 0
    """For asks of so many cards; 0 for none."""
    cost: float = 0.0
    """What it costs to go there, for others, or elsewhere, for these."""


class Worth(Struct, frozen=True):
    """One node and one ask."""

    score: float
    """The change of everything below, below 0; the node nearest to 0 is chosen."""
    seats: tuple[Seat, ...]
    """Those that change, the dearest loss first."""
    residues: float
    """The change of what free parts are worth as far as the host's CPU serves them, as it counts in the score."""
    prices: tuple[Price, ...]
    """Of every card that takes something."""
    formula: str
    """The score as a sum one can check by hand."""
    aside: Aside = Aside()


def shown(scale: Scale, before: Sides, after: Sides, *, free: Longs, free_after: Longs, aside: Aside) -> Worth:
    """`free` are the places of the node's cards in the scale's tables."""
    pairs = zip(scale.shapes, scale.weight.tolist(), before[0].tolist(), after[0].tolist(), strict=True)
    seats = [Seat(_said(shape), weight, had, left) for shape, weight, had, left in pairs if had != left]
    seats.sort(key=lambda seat: seat.change)
    residues = RESIDUES * (after[1] - before[1])
    seated = sum(seat.change for seat in seats)
    return Worth(
        score=round(seated + residues - aside.cost, 3),
        seats=tuple(seats),
        residues=round(residues, 3),
        prices=tuple(
            Price(place, have % LEVELS, _worth(scale, have), left % LEVELS, _worth(scale, left))
            for place, (have, left) in enumerate(zip(free.tolist(), free_after.tolist(), strict=True))
            if have
        ),
        formula=f"seats {seated:+.1f} {'+' if residues >= 0 else '-'} residues {abs(residues):.1f}{_last(aside)}",
        aside=aside,
    )


def _last(aside: Aside) -> str:
    if not aside.cost:
        return ""
    why = f"the node is set aside for asks of {aside.cards} cards" if aside.cards else "others are set aside for it"
    return f" - {aside.cost:.0f}, since {why}"


def _worth(scale: Scale, place: int) -> float:
    return round(float(scale.residue[place]), 3)


def _said(shape: Shape) -> str:
    cpu = f" with {shape.cpu_milli / 1000:g} CPU" if shape.cpu_milli else ""
    return spoken(shape.ask) + cpu
