"""What is typically asked: learned shapes, and what is always looked at."""

import pytest

from hami.plan.advice.typical import A_STEP, LEARNED, Typical, learn, learning, standard
from hami.plan.steps import finish

from .builders import NVIDIA, OTHER, app, init, node, pod, used, want


def names(found: list[Typical]) -> list[str]:
    return [one.name for one in found]


def test_the_containers_of_a_shape_are_named_in_their_order() -> None:
    one = pod(init(want(500)), app(want(8000), want(2, family=OTHER)), app(), uid="a")
    (found,) = learn([one], [])
    assert (found.name, found.seen) == ("1 x 500 MiB + 1 x 8000 MiB + 1 x 2 MiB", 1)
    assert [each.cards for each in found.ask.containers] == [(want(500),), (want(8000), want(2, family=OTHER))]
    assert found.ask.card_policy == one.card_policy


def test_shapes_are_learned_the_most_frequent_first_and_no_more_than_so_many() -> None:
    asks = [pod(app(want(size), name=f"c{number}")) for size in range(1, 12) for number in range(size)]
    found = learn([*asks, pod(app())], [])
    assert names(found) == [f"1 x {size} MiB" for size in range(11, 11 - LEARNED, -1)]
    assert [one.seen for one in found] == list(range(11, 3, -1)), "eight"


def test_a_whole_card_half_and_quarter_are_always_there_unless_they_were_learned() -> None:
    nodes = [node(used("d0"), used("d1"))]
    assert names(learn([], nodes)) == ["a whole card", "half a card", "a quarter of a card"]
    half = pod(app(want(percent=50, cores=50)))
    assert names(learn([half], nodes)) == ["1 x 50 % memory, 50 %", "a whole card", "a quarter of a card"]
    assert [one.seen for one in learn([half], nodes)] == [1, 0, 0]
    assert learn([], []) == []


def test_with_several_families_each_part_says_of_which() -> None:
    nodes = [node(used("d0")), node(used("d1", family=OTHER), name="b")]
    parts = ("a whole card", "half a card", "a quarter of a card")
    assert names(learn([], nodes)) == [f"{part} ({family})" for family in sorted((NVIDIA, OTHER)) for part in parts]
    whole = standard([OTHER])[0].ask.containers[0].cards
    assert whole == (want(percent=100, cores=100, family=OTHER),)
    assert standard([OTHER])[0].ask.card_policy == ("binpack",)


@pytest.mark.parametrize(("asks", "nodes", "steps"), [(0, 0, 0), (1, 1, 2), (A_STEP, A_STEP, 2), (A_STEP + 1, 120, 5)])
def test_so_many_asks_or_nodes_are_looked_at_in_one_step(asks: int, nodes: int, steps: int) -> None:
    work = learning([pod(app(want(1)))] * asks, [node(used("d0"))] * nodes)
    assert sum(1 for _ in work) == steps
    assert finish(learning([], [])) == []
