"""Some way to share a few wants of one card each out over a node's cards: exact, for thousands of nodes at once.

Sets of wants are numbers, a bit a want; what a node's cards can serve is a word with a bit for each set: of
`exact.sharing.MOST_WANTS`, 2 ** 5 bits.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hami.plan.fleet.columns import Bools, Bytes

TABLED_WANTS = 3
"""Up to which a table says what two cards serve together: 64 KB for three."""

Words = NDArray[np.uint64]


def shared_out(holds: Sequence[Bools], wants: int) -> Bools:
    """Nodes on which all wants find a card. `holds` has [card][node] for each set but the empty one, in order: whether
    the card holds that set."""
    reached = _reached_by_table(holds, wants) if wants <= TABLED_WANTS else _reached(holds, wants)
    every = (1 << wants) - 1
    found: Bools = (reached >> reached.dtype.type(every) & reached.dtype.type(1)).astype(np.bool_)
    return found


def _reached(holds: Sequence[Bools], wants: int) -> Words:
    """Of each node, the sets of wants that all of its cards can serve; the empty one too.

    Card by card: one that holds set S turns every T without S into T + S.
    """
    reached = np.ones(holds[0].shape[1], np.uint64)
    for card in range(len(holds[0])):
        before = reached.copy()
        for chosen, held in enumerate(holds, 1):
            without = before & np.uint64(_without(chosen, wants))
            reached |= (without << np.uint64(chosen)) * held[card].view(np.uint8)
    return reached


def _reached_by_table(holds: Sequence[Bools], wants: int) -> Bytes:
    """The same for few wants: what two halves of the cards can serve together is looked up."""
    held = np.zeros(holds[0].shape, np.uint8)
    for place, one in enumerate(holds):
        held |= one.view(np.uint8) << np.uint8(place)
    reached = _alone(wants).take(held)
    both = _both(wants)
    while len(reached) > 1:
        half = len(reached) // 2
        pairs = reached[:half].astype(np.uint16) << np.uint16(8)
        pairs |= reached[half : 2 * half]
        reached = np.concatenate((both.take(pairs), reached[2 * half :]))
    found: Bytes = reached[0]
    return found


@cache
def _alone(wants: int) -> Bytes:
    """For each choice of sets that a card holds (a bit a set), the sets it can serve; the empty one too."""
    return np.array([held << 1 | 1 for held in range(1 << (1 << wants) - 1)], np.uint8)


@cache
def _both(wants: int) -> Bytes:
    """For two states, a byte each, the state of both: every set of the one with every set of the other that it shares
    no want with."""
    states = np.arange(1 << (1 << wants))
    one, two = states[:, None], states[None, :]
    table = np.zeros((len(states), 256), np.uint8)
    for first, second in product(range(1 << wants), repeat=2):
        if not first & second:
            table[:, : len(states)] |= ((one >> first & two >> second & 1) << (first | second)).astype(np.uint8)
    return table.ravel()


@cache
def _without(chosen: int, wants: int) -> int:
    """A bit for each set of wants that has none of `chosen`."""
    return sum(1 << served for served in range(1 << wants) if not served & chosen)
