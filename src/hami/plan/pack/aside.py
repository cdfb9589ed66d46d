"""Nodes that are set aside for asks that take more than half of a node: where pods leave again, others go there last.

Room for one card comes back with every pod that ends; a node with eight idle cards only by being left alone, for as
long as the longest of its pods lives. Always the same nodes are left alone, so that they are idle when they are
wanted, and wide pods follow one another on them. They are as many as the wide pods that run at once in the long run,
and the square root of that more: by so much their number varies where they come at random.
"""

import math
from collections.abc import Sequence

import numpy as np

from hami.model.ids import Family
from hami.plan.exact.rules import kind_accepted
from hami.plan.fleet.columns import Bools, Columns, Floats, Longs
from hami.plan.pack.demand import MOST_WIDE, Demand, Shape
from hami.plan.pack.prices import FULL
from hami.plan.pack.scale import capacities, share_of

LAST = 1e9
"""What it costs to go where a node is set aside for others: more than any gain, less than to have no room."""
IN_NEED = -LAST / 2
"""A gain below this is that of a node that is taken only where no other has room."""


def set_aside(demand: Demand, family: Family, columns: Columns) -> Longs:
    """[row]: for asks of how many cards the node is set aside, 0 for none. The widest choose first, and take the nodes
    that can serve most of what is asked of their width, of equal ones always the same."""
    aside = np.zeros(len(columns.version), np.int64)
    if not demand.turnover:
        return aside
    rows = slice(columns.rows)
    kind, whole = columns.kind[:, rows], columns.host_whole[rows]
    own = np.array([of == family for of, _, _ in columns.kinds]).take(kind) & (columns.standing[:, rows] == 0)
    have = np.count_nonzero(own, axis=0)
    sizes = capacities(columns, len(columns.kinds))
    at_once = {width: number for width, number in demand.lives.at_once(family).items() if number}
    for width, number in sorted(at_once.items(), reverse=True):
        serves = np.zeros(columns.rows)
        for shape, count in demand.wide(family, width)[:MOST_WIDE]:
            able = _accepting(shape, columns, sizes).take(kind) & own
            serves += count * ((np.count_nonzero(able, axis=0) >= width) & (whole >= shape.cpu_milli))
        serves *= (aside[rows] == 0) & (have < 2 * width)
        first = np.argsort(-serves, kind="stable")[: wanted(number, demand.turnover)]
        aside[first[serves[first] > 0]] = width
    return aside


def wanted(number: float, turnover: float) -> int:
    """How many nodes are set aside for wide pods of which so many run at once; none where nobody leaves."""
    return round(turnover * (number + math.sqrt(number)))


def lateness(aside: Longs, cards: int, *, own: bool) -> Floats:
    """What it costs an ask of so many cards to go to nodes that are set aside like this: most where it is for others,
    nothing where it is for its like; where there are such (`own`), something where it is for nobody."""
    found: Floats = LAST * ((1 + own) * ((aside != 0) & (aside != cards)) + own * (aside == 0))
    return found


def _accepting(shape: Shape, columns: Columns, sizes: Sequence[tuple[int, int]]) -> Bools:
    """[kind]: whether such a card could be one of those the shape asks for."""
    found: Bools = np.array(
        [
            share_of(shape.ask, *size) <= FULL and kind_accepted(shape.ask.rules, model, mode)
            for (_, model, mode), size in zip(columns.kinds, sizes, strict=True)
        ]
    )
    return found
