"""Which cards of a node an ask takes: those that lose least by it. For many rows at once.

What a card loses depends on its place in the scale's tables alone, so it is worked out once for each place.
"""

import numpy as np

from hami.model.ask import CardAsk
from hami.plan.fleet.columns import Bools, Floats, Longs
from hami.plan.pack.aside import LAST
from hami.plan.pack.scale import LEVELS, Scale

_NEVER = 1 << 62
_LATE = 1 << 60
"""Above what any loss makes."""
_BITS = 10
"""For the free thousandths of a card, and as many for its number in the node."""
_FINE = 1e6
"""Losses are compared to so many parts of a thousandth of a card."""


class Lending:
    """One ask at the prices of one scale."""

    def __init__(self, scale: Scale, ask: CardAsk) -> None:
        self._shares = scale.shares(ask)
        share = self._shares.repeat(LEVELS)
        left = scale.place - share
        able = scale.room >= np.maximum(share, 1)  # a card without room takes nothing, not even an ask for nothing
        loss = scale.of_card - scale.of_card.take(left, mode="clip")
        loss *= _FINE
        order = np.rint(loss, out=loss).astype(np.int64)
        order <<= _BITS
        order |= scale.room
        order <<= _BITS
        self._order: Longs = np.where(able, order, _NEVER)
        """[kind and room]: how late such a card is taken: by its loss, then the fuller one first."""

    def cards(self, place: Longs, cards: int) -> tuple[Longs, Bools]:
        """Of rows whose cards stand at `place` [card][row]: the cards taken [card][row], the lower number first where
        they are equal, and the rows that have so many."""
        if cards > len(place):
            return np.zeros((cards, place.shape[1]), np.int64), np.zeros(place.shape[1], np.bool_)
        order = self._order.take(place)
        order |= np.arange(len(place))[:, None]
        best = _lowest(order, cards)
        return best & ((1 << _BITS) - 1), best[-1] < _NEVER

    def promising(
        self, place: Longs, rows: Longs, cards: int, most: int, scratch: Longs, *, late: Floats | None = None
    ) -> tuple[Longs, Bools]:
        """Places in `rows` of so many of them, those whose first card loses least and the `late` ones last; and all of
        them that have so many cards. `place` is that of all rows, [card][row]; `scratch` is as large and may be written
        to."""
        if len(rows) * 3 > place.shape[1]:  # then to look at all is cheaper than to pick
            first = self._first(self._order.take(place, out=scratch, mode="clip"), cards).take(rows)
        else:
            first = self._first(self._order.take(place.take(rows, axis=1)), cards)
        able = first < _NEVER
        if late is not None:
            first += (late / LAST).astype(np.int64) * (able * _LATE)
        return np.argpartition(first, most)[:most], able

    @staticmethod
    def _first(order: Longs, cards: int) -> Longs:
        """How late each row's first card is taken; never where there are too few."""
        first: Longs = order.min(axis=0)
        if cards > 1:
            able = np.add.reduce((order < _NEVER).view(np.uint8), axis=0, dtype=np.uint16)
            first[able < cards] = _NEVER
        return first

    def shares(self, place: Longs) -> Longs:
        """Thousandths taken of cards at these places."""
        return self._shares.take(place // LEVELS)


def _lowest(order: Longs, cards: int) -> Longs:
    """[card][row]: of each row the lowest so many, which differ; ascending."""
    if cards > FEW:
        return np.sort(order, axis=0)[:cards]
    found = np.empty((cards, order.shape[1]), np.int64)
    for number in range(cards):
        if number:
            np.copyto(order, _NEVER, where=order == found[number - 1])
        order.min(axis=0, out=found[number])
    return found


FEW = 4
"""Up to so many cards it is faster to look for one after the other than to sort."""
