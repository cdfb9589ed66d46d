"""A tally counts the cards of a node by what refuses them, whatever else memory could have been asked for."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from hami.plan.fleet.tally import AFTER_MEMORY, FIRST, LACKS_MEMORY, LEFT, MAX_CARDS, counts, tallies


@pytest.mark.parametrize("cards", [1, 2, 3, 8, 9, MAX_CARDS])
def test_cards_are_counted_by_their_first_reason(cards: int) -> None:
    random = Random(cards)
    said = {0: None, LEFT: None, **{number: reason for reason, number in (*FIRST.items(), *AFTER_MEMORY.items())}}
    assert len(said) == 2 + len(FIRST) + len(AFTER_MEMORY), "each has a number of its own"
    assert max(said) < 16, "two fit in a byte"
    nodes = [[random.choice(list(said)) for _ in range(cards)] for _ in range(40)]
    nodes.append([LACKS_MEMORY] * cards)
    found = tallies(np.array(nodes, np.uint8).T.copy())
    for node, tally in zip(nodes, found.tolist(), strict=True):
        assert Counter(counts(tally)) == Counter(said[number] for number in node if said[number] is not None)


def test_what_is_asked_after_memory_is_told_from_what_is_asked_before() -> None:
    assert all(number > LEFT for number in AFTER_MEMORY.values())
    assert all(number < LEFT for number in FIRST.values())
