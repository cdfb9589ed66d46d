"""What a part of a card is worth: prices from the fewest cards that would hold all that is asked.

Suppose all the shares that were seen were to be cut out of as few cards as possible (cutting stock). The dual
of that linear program prices each size, so that no card can be cut into more than 1 worth; a size that goes badly
with the others costs more than its share. A residue of r thousandths is worth the most
that can be cut out of it. Solved by column generation: the best new pattern is a knapsack.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hami.plan.steps import Steps, finish

Floats = NDArray[np.float64]

FULL = 1000
"""Units of a card."""
MOST_SIZES = 40
"""The most frequent ones."""
MOST_ROUNDS = 150
"""Then the prices so far are good enough: they order cards, nobody pays them."""
_TINY = 1e-9


def residues(counts: Mapping[int, float]) -> Floats:
    """Worth of 0..1000 free thousandths of a card, for counts of shares by size; a whole card is worth 1."""
    return finish(pricing(counts))


def pricing(counts: Mapping[int, float]) -> Steps[Floats]:
    """The same, a round a step."""
    parts = sorted(((size, count) for size, count in counts.items() if 0 < size < FULL), key=lambda entry: -entry[1])
    chosen = dict(sorted(parts[:MOST_SIZES]))
    sizes, worth = tuple(chosen), np.zeros(FULL + 1)
    if sizes:
        worth = _worth(sizes, (yield from _duals(sizes, np.array(list(chosen.values())))))
    worth[FULL] = max(1.0, worth[FULL])
    return worth


def _duals(sizes: tuple[int, ...], counts: Floats) -> Steps[Floats]:
    """The price of each size: of cards, such that all prices of any pattern sum to 1 at most."""
    basis = np.diag([float(FULL // size) for size in sizes])
    amounts = counts / basis.diagonal()
    prices: Floats = 1 / basis.diagonal()
    for _ in range(MOST_ROUNDS):
        yield
        worth = _worth(sizes, prices)
        if worth[FULL] <= 1 + 1e-7:
            break
        column = _pattern(sizes, prices, worth)
        weights = np.linalg.solve(basis, column)
        usable = weights > _TINY
        ratios = np.divide(amounts, weights, out=np.full(len(sizes), np.inf), where=usable)
        leaving = int(ratios.argmin())
        amounts = np.maximum(amounts - ratios[leaving] * weights, 0)
        amounts[leaving] = ratios[leaving]
        basis[:, leaving] = column
        prices = np.asarray(np.linalg.solve(basis.T, np.ones(len(sizes))), np.float64)
    return np.maximum(prices, 0)


def _worth(sizes: tuple[int, ...], prices: Floats) -> Floats:
    """For each room the dearest set of sizes that it holds, any number of each."""
    worth = np.zeros(FULL + 1)
    for size, price in zip(sizes, prices, strict=True):
        step = size
        while step <= FULL:  # one, two, four, ... of it: every number is a sum of these
            np.maximum(worth[step:], worth[: FULL + 1 - step] + price, out=worth[step:])
            step, price = 2 * step, 2 * price  # noqa: PLW2901 - of twice as many
    return worth


def _pattern(sizes: tuple[int, ...], prices: Floats, worth: Floats) -> Floats:
    """How many of each size make up the worth of a whole card."""
    found, room = np.zeros(len(sizes)), FULL
    while True:
        for place, size in enumerate(sizes):
            if prices[place] > _TINY and size <= room and abs(worth[room] - worth[room - size] - prices[place]) < _TINY:
                found[place] += 1
                room -= size
                break
        else:
            return found
