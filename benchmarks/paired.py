"""Whether two policies differ by more than chance, from runs on the same seeds: a test without assumptions.

If they did not differ, each seed's difference could as well have had the other sign. So the mean of the differences
is compared with its value under choices of signs; p is the part of all choices that are as far from 0 (two-sided).
Up to 20 seeds every choice is tried (with ten seeds the smallest p is 2/1024 = 0.002), with more a million drawn ones.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 20
"""Seeds up to which every choice of signs is tried (1,048,576)."""
DRAWS, PIECE = 1_000_000, 50_000
"""Choices of signs drawn where there are more seeds, and how many at once."""
RESAMPLED = 20_000
"""Draws of as many seeds, with replacement, that the interval is read from."""


class Lead(NamedTuple):
    """`mean` is by how much the first is above the second."""

    mean: float
    p: float
    seeds: int
    low: float
    """The mean would be from here..."""
    high: float
    """...to here in 95 of 100 draws of as many seeds (percentiles of resampled means)."""


def compared(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Lead | None:
    """By all seeds that both have. None where there is none. The same input gives the same answer."""
    differences = np.array([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])
    if not len(differences):
        return None
    low, high = _interval(differences)
    return Lead(float(differences.mean()), _p(differences), len(differences), low, high)


def _p(differences: NDArray[np.float64]) -> float:
    far = abs(float(differences.sum()))
    far -= 1e-9 * max(1.0, far)
    if len(differences) <= MOST:
        sums = _sums(differences.tolist())
        return int((np.abs(sums) >= far).sum()) / len(sums)
    rng, as_far = np.random.default_rng(0), 1  # the choice that was seen counts too, so p is never 0
    for _ in range(DRAWS // PIECE):
        signs = 2 * rng.integers(0, 2, (PIECE, len(differences)), dtype=np.int8) - 1
        as_far += int((np.abs(signs @ differences) >= far).sum())
    return as_far / (DRAWS + 1)


def _sums(differences: Sequence[float]) -> NDArray[np.float64]:
    """Under every choice of signs."""
    found = np.zeros(1)
    for one in differences:
        found = np.concatenate([found + one, found - one])
    return found


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (RESAMPLED, len(differences))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
