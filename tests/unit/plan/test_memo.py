"""Pairs of words keep their numbers, though two pairs may want the same place of the table."""

from random import Random

import numpy as np
import pytest

from hami.plan.fleet import memo
from hami.plan.fleet.memo import Memo


class Counter:
    """Gives each new pair the next number, and counts how often it is asked."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, int], int] = {}
        self.asked = 0

    def __call__(self, one: int, two: int) -> int:
        self.asked += 1
        return self.numbers.setdefault((one, two), len(self.numbers))


def numbers(table: Memo, pairs: list[tuple[int, int]], number: Counter) -> list[int]:
    one, two = (np.array([pair[place] for pair in pairs], np.int64) for place in (0, 1))
    return table.numbers(one, two, number).tolist()


@pytest.mark.parametrize("bits", [13, 1])  # the second with two places for all
@pytest.mark.parametrize(("many", "different"), [(0, 1), (40, 5), (900, 1), (900, 40), (900, 900)])
def test_each_pair_has_its_number_again_and_again(
    bits: int, many: int, different: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(many + different)
    monkeypatch.setattr(memo, "_BITS", bits)
    monkeypatch.setattr(memo, "_SHIFT", np.uint64(64 - bits))
    own = [(random.randrange(2**63), random.randrange(2**40)) for _ in range(different)]
    own += [(0, 0), (1, 0), (own[0][0], 0), (0, own[0][1])]  # those that are alike in one word are not alike
    table, number = Memo(), Counter()
    for _ in range(3):
        pairs = [random.choice(own) for _ in range(many)]
        assert numbers(table, pairs, number) == [number.numbers[pair] for pair in pairs]


def test_who_is_known_is_not_numbered_again() -> None:
    table, number = Memo(), Counter()
    pairs = [(1, 2), (2, 1), (1, 2), (0, 0)]
    assert numbers(table, pairs, number) == numbers(table, pairs, number)
    assert number.asked == 3


def test_hundreds_of_pairs_as_nodes_have_them_seldom_meet() -> None:
    table, number = Memo(), Counter()
    assert len(table._one) == len(table._two) == len(table._number) == 8192
    pairs = [(tally << 42, total << 24 | fit) for tally in range(20) for total in range(4) for fit in range(5)]
    numbers(table, pairs, number)
    number.asked = 0
    numbers(table, pairs, number)
    assert number.asked < 40
    assert (table._one >= 0).sum() > 350, "of 400 they take"


def test_every_place_of_the_table_can_be_taken() -> None:
    random, table = Random(1), Memo()
    pairs = [(random.randrange(2**63), random.randrange(2**40)) for _ in range(20 * len(table._one))]
    numbers(table, pairs, lambda one, two: 0)  # type: ignore[arg-type]
    assert (table._one >= 0).all()


def test_two_words_that_differ_in_the_highest_bit_alone_do_not_meet() -> None:
    """As they would by an even number: the highest bits of the product would be the same."""
    assert [int(factor) % 2 for factor in memo._FACTORS] == [1, 1]
    table, number = Memo(), Counter()
    high = 1 << 62
    pairs = [(place | bit, place) for place in range(50) for bit in (0, high)]
    numbers(table, pairs, number)
    number.asked = 0
    numbers(table, pairs, number)
    assert number.asked < 10
