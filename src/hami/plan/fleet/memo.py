"""A number for each pair of words, thousands of pairs at once: what was numbered before is looked up by numpy.

One pair a place: where two meet, the later one drives the earlier out, which is numbered again when it comes back.
So whoever numbers must give the same pair the same number.
"""

from collections.abc import Callable

import numpy as np

from hami.plan.fleet.columns import Ints, Longs

_BITS = 13
_SHIFT = np.uint64(64 - _BITS)
_FACTORS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
"""Odd numbers; the highest bits of a sum of words times these are the place."""


class Memo:
    """Words are not negative."""

    def __init__(self) -> None:
        self._one: Longs = np.full(1 << _BITS, -1, np.int64)
        """The first word of the pair at each place; -1 where there is none."""
        self._two: Longs = np.zeros(1 << _BITS, np.int64)
        self._number: Ints = np.zeros(1 << _BITS, np.int32)

    def numbers(self, one: Longs, two: Longs, number: Callable[[int, int], int]) -> Ints:
        """The number of each pair, from `number` where it is not known."""
        hashed = one.view(np.uint64) * _FACTORS[0]
        hashed += two.view(np.uint64) * _FACTORS[1]
        hashed >>= _SHIFT
        return self._at(hashed.view(np.int64), one, two, number)

    def _at(self, places: Longs, one: Longs, two: Longs, number: Callable[[int, int], int]) -> Ints:
        found: Ints = self._number.take(places)
        known = self._one.take(places) == one
        known &= self._two.take(places) == two
        if known.all():
            return found
        new = np.flatnonzero(~known)
        places, one, two = places.take(new), one.take(new), two.take(new)
        self._one[places], self._two[places] = one, two  # of pairs that meet the last one stays
        for place in set(places.tolist()):
            self._number[place] = number(int(self._one[place]), int(self._two[place]))
        found[new] = self._at(places, one, two, number)
        return found
