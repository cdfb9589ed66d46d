"""Whether two policies differ by more than chance, from runs on the same seeds: an exact test without assumptions.

If they did not differ, each seed's difference could as well have had the other sign. So the mean of the differences
is compared with its value under every choice of signs; p is the part of all choices that are as far from 0
(two-sided). With ten seeds the smallest p is 2/1024 = 0.002.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 20
"""Seeds up to which every choice of signs is tried (1,048,576)."""


class Lead(NamedTuple):
    """`mean` is by how much the first is above the second."""

    mean: float
    p: float
    seeds: int


def compared(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Lead | None:
    """By seeds that both have, the first `MOST` of them. None where there is none."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())][:MOST]
    if not differences:
        return None
    total, sums = sum(differences), _sums(differences)
    as_far = int((np.abs(sums) >= abs(total) - 1e-9 * max(1.0, abs(total))).sum())
    return Lead(total / len(differences), as_far / len(sums), len(differences))


def _sums(differences: Sequence[float]) -> NDArray[np.float64]:
    """Under every choice of signs."""
    found = np.zeros(1)
    for one in differences:
        found = np.concatenate([found + one, found - one])
    return found
