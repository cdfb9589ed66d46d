"""Whether several containers of one pod fit beside each other, asked of all nodes at once.

Each want alone is a `Scan`. Wants of one family that run at the same time share cards, and
three conditions settle most nodes without looking at one exactly: every want finds
cards of its own, all of them stack on the same cards, or (two wants of one card each) one of
both. Under the first two the greedy choice of `plan.fit` cannot run out of cards: see the
notes at each. Nodes that stay open are for an exact look.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from hami.model.ask import ContainerKind
from hami.model.ids import Family
from hami.plan.columns import Bools, Columns, Longs, Scan
from hami.plan.fit import Want
from hami.plan.rules import WHOLE

Pair = tuple[Want, Scan]


def coupled(wants: Iterable[Want]) -> list[list[Want]]:
    """Groups of wants that may meet on a card: same family, running at the same time."""
    families: dict[Family, list[Want]] = {}
    for want in wants:
        families.setdefault(want.ask.family, []).append(want)
    return [group for group in map(_meeting, families.values()) if len(group) > 1]


def _meeting(wants: Sequence[Want]) -> list[Want]:
    """Without the init containers that run before any sidecar: they meet nobody."""
    first = next((place for place, want in enumerate(wants) if want.kind is not ContainerKind.INIT), len(wants))
    return list(wants[first:])


def settle(columns: Columns, group: Sequence[Pair], idle_only: bool, cut: slice | Longs) -> Bools:
    """Where the group surely fits. Elsewhere it may still; for two wants of one card each it does not."""
    alone: Bools = np.logical_and.reduce([scan.fits for _, scan in group])
    if any(want.ask.rules.numa_bind and want.ask.cards > 1 for want, _ in group):
        return np.zeros_like(alone)
    fits = alone & (_apart(group) | (False if idle_only else _stacked(columns, group, cut)))
    if _simple_pair(group):
        one, two = group[0][1], group[1][1]
        fits |= alone & (np.count_nonzero(one.accepts | two.accepts, axis=0) > 1)
    return fits


def _simple_pair(group: Sequence[Pair]) -> bool:
    return len(group) == 2 and all(want.kind is not ContainerKind.INIT and want.ask.cards == 1 for want, _ in group)


def _apart(group: Sequence[Pair]) -> Bools:
    """Enough cards accept every want. Whichever the earlier ones took, enough untouched ones are left."""
    common = np.logical_and.reduce([scan.accepts for _, scan in group])
    found: Bools = np.count_nonzero(common, axis=0) >= sum(want.ask.cards for want, _ in group)
    return found


def _stacked(columns: Columns, group: Sequence[Pair], cut: slice | Longs) -> Bools:
    """Enough cards hold the sum of all. Whichever the earlier ones took, each of these still has room for the rest."""
    good = np.logical_and.reduce([scan.accepts for _, scan in group])
    free_core, core = columns.free_core[:, cut], columns.core[:, cut]
    good &= columns.free_slots[:, cut] >= len(group)
    mem = sum((np.asarray(scan.mem, np.int64) for _, scan in group), np.int64(0))
    good &= columns.free_mem[:, cut] >= mem
    before = 0
    for want, _ in group:
        if want.ask.core_percent == 0:
            good &= (free_core > before) | (core == 0)
        if want.ask.core_percent == WHOLE:
            good &= core != WHOLE
        before += want.ask.core_percent
    good &= free_core >= before
    found: Bools = np.count_nonzero(good, axis=0) >= max(want.ask.cards for want, _ in group)
    return found
