"""Refusals by the thousand: two numbers a node, and the same words whoever asks."""

from random import Random

import numpy as np
import pytest

from hami.model.refusal import Reason, Refusal
from hami.plan.exact import refuse
from hami.plan.exact.refuse import Form
from hami.plan.fleet.refusals import FEASIBLE, NOTHING, SAID, SHORT, UNKNOWN, Refusals, Words, distinct

Pair = tuple[int, int]


def of(*pairs: Pair) -> Refusals:
    """A node each, named in order."""
    words = Words()
    words.number(refuse.form(refuse.unusable("silent")))
    numbers, missing = np.array([number for number, _ in pairs], np.int32), np.array([lack for _, lack in pairs])
    return Refusals([f"n{place}" for place in range(len(pairs))], numbers, missing, words)


@pytest.mark.parametrize(
    ("pairs", "most", "found"),
    [
        ([(1, NOTHING), (2, 500), (2, 501)], 3, [(1, NOTHING), (2, 500), (2, 501)]),
        ([(1, NOTHING), (2, 500), (2, 501)], 2, None),
        ([(2, 0), (2, NOTHING), (1, 2**33)], 3, [(1, 2**33), (2, NOTHING), (2, 0)]),
        ([(1, 7)] * 30 + [(2, 7)], 2, [(1, 7), (2, 7)]),  # the last of many
        ([(1, 7)] * 30 + [(2, 7), (2, 8)], 2, None),
        ([(1, 7)] * 30, 1, [(1, 7)]),
        ([(1, place) for place in range(25)] + [(1, 0)], 2, None),
    ],
)
def test_the_different_things_said_are_listed_with_whom_they_are_said_of_unless_they_are_too_many(
    pairs: list[Pair], most: int, found: list[Pair] | None
) -> None:
    alike = of(*pairs).alike_by_pair(most)
    assert (None if alike is None else [pair for *pair, _ in alike]) == (found and list(map(list, found)))
    for number, missing, names in alike or ():
        assert names == [f"n{place}" for place, pair in enumerate(pairs) if pair == (number, missing)]


def test_texts_are_dealt_out_by_number_in_the_order_of_names() -> None:
    refusals = of((1, NOTHING), (2, 500), (1, NOTHING), (2, 40), (2, 500))
    assert refusals.by_number({1: "one", 2: "two"}) == ["one", "two", "one", "two", "two"]
    assert refusals.alike_by_number() == [(1, ["n0", "n2"]), (2, ["n1", "n3", "n4"])]
    assert refusals.tally() == {1: 2, 2: 3}
    assert refusals.numbers == [1, 2, 1, 2, 2]


def test_where_nothing_is_refused_nothing_is_said() -> None:
    nobody = Refusals.of({})
    assert (nobody.alike_by_pair(3), nobody.alike_by_number()) == ([], [])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 3000])
def test_few_values_and_many_are_told_apart_alike(size: int) -> None:
    random = Random(size)
    values = [random.randrange(-5, 300) for _ in range(size)]
    assert distinct(np.array(values, np.int64)) == sorted(set(values))


def test_a_refusal_is_the_same_however_it_came_to_be_kept() -> None:
    made = {
        "a": refuse.unusable("silent"),
        "b": refuse.too_few(3, 1),
        "c": Refusal(((Reason.INSUFFICIENT_MEMORY, 2),), total=2),
        "d": refuse.unusable("silent"),
    }
    kept = Refusals.of(made)
    assert {name: one.text for name, one in kept.items()} == {name: one.text for name, one in made.items()}
    assert len(kept) == 4
    assert list(kept) == list(made)
    assert kept["a"] is kept["d"]
    with pytest.raises(KeyError):
        kept["e"]


def test_the_same_of_every_node_and_those_of_other_nodes_are_kept_as_one_by_one() -> None:
    silent, few = refuse.unusable("silent"), refuse.too_few(3, 1)
    alike = Refusals.alike(["a", "b"], silent)
    assert dict(alike) == {"a": silent, "b": silent}
    assert dict(alike.beside({"c": few, "d": silent})) == {"a": silent, "b": silent, "c": few, "d": silent}
    lacking = of((1, NOTHING), (2, 7)).beside({"z": few})
    alike = [(1, NOTHING, ["n0"]), (2, 7, ["n1"]), (3, NOTHING, ["z"])]
    assert (lacking.alike_by_pair(3), dict(lacking)["z"]) == (alike, few)


def test_a_number_means_the_same_for_good_and_what_is_spelled_out_is_forgotten_before_it_is_too_much() -> None:
    words = Words()
    numbers = [words.number(refuse.form(refuse.too_few(asked, 1))) for asked in (2, 3, 2)]
    assert numbers == [len(words) - 2, len(words) - 1, len(words) - 2]
    assert words.refusal(numbers[1], NOTHING).text == refuse.too_few(3, 1).text
    first = words.refusal(numbers[0], 0)
    assert words.refusal(numbers[0], 0) is first
    for missing in range(1, SAID):
        words.refusal(numbers[0], missing)
    assert words.refusal(numbers[0], 0) is not first
    assert words.refusal(numbers[0], 0).text == first.text


def test_a_few_values_are_told_apart_by_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([place % 7 for place in range(SHORT)], np.int64)
    monkeypatch.setattr("hami.plan.fleet.refusals.np.sort", None)
    assert distinct(values) == list(range(7))


def test_the_first_number_says_nothing_and_the_second_that_nobody_knows_the_node() -> None:
    words = Words()
    assert words.forms == [Form((), 0, "", ""), Form(((Reason.UNREGISTERED, 1),), 0, "", "")]
    assert (FEASIBLE, UNKNOWN) == (0, 1)
