"""Thousands of names in two lists, those at some places and the others, each in the order they came."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from hami.plan.fleet.columns import Longs


class Records(Sequence[str]):
    """Names that are kept as something else than strings: two lists of them are made without one."""

    @abstractmethod
    def at(self, places: Longs) -> "Records":
        """Those at `places`, in that order."""


def parted(names: Sequence[str], out: Longs) -> tuple[Sequence[str], Sequence[str]]:
    """`names` without those at the places `out`, and those."""
    if isinstance(names, Records):
        return _copied(names, out)
    if len(out) * VERY_FEW < len(names):
        return _picked(names, out)
    every = np.fromiter(names, object, len(names))
    stays = np.ones(len(names), np.bool_)
    stays[out] = False
    return every[stays].tolist(), every.take(out).tolist()


def at(names: Sequence[str], places: Longs) -> Sequence[str]:
    """Those at `places`, which ascend."""
    if len(places) == len(names):
        return names
    return names.at(places) if isinstance(names, Records) else [names[place] for place in places.tolist()]


def _copied(names: Records, out: Longs) -> tuple[Records, Records]:
    """The same without a string."""
    if not len(out):
        return names, names.at(out)
    stays = np.ones(len(names), np.bool_)
    stays[out] = False
    return names.at(np.flatnonzero(stays)), names.at(out)


def _picked(names: Sequence[str], out: Longs) -> tuple[list[str], list[str]]:
    """The same for very few places: what lies between them is copied in one go."""
    kept: list[str] = []
    done = 0
    places: list[int] = out.tolist()
    for place in places:
        kept += names[done:place]
        done = place + 1
    kept += names[done:]
    return kept, [names[place] for place in places]


VERY_FEW = 16
"""Where less than one name in so many goes, picking those is the fastest way."""
