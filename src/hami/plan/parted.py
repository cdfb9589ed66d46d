"""Thousands of names in two lists, those at some places and the others, each in the order they came."""

from collections.abc import Sequence
from itertools import compress

import numpy as np

from hami.plan.columns import Longs


def parted(names: Sequence[str], out: Longs) -> tuple[list[str], list[str]]:
    """`names` without those at the places `out`, and those."""
    if len(out) * VERY_FEW < len(names):
        return _picked(names, out)
    goes = np.zeros(len(names), np.bool_)
    goes[out] = True
    stays = ~goes
    if (len(names) - len(out)) * FEW < len(names):
        return _at(names, np.flatnonzero(stays)), list(compress(names, goes.tobytes()))
    refused = _at(names, out) if len(out) * FEW < len(names) else list(compress(names, goes.tobytes()))
    return list(compress(names, stays.tobytes())), refused


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


def _at(names: Sequence[str], places: Longs) -> list[str]:
    return [names[place] for place in places.tolist()]


VERY_FEW, FEW = 16, 3
"""Where less than one name in so many goes, picking those is the fastest way; where `FEW` are on one side, for that."""
