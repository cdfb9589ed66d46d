"""/prioritize: kube-scheduler is led to where the slice is held."""

from typing import Any

import pytest

from hami.model.errors import Malformed
from hami.scheduler.verbs import prioritize


def test_ten_points_go_to_the_node_that_holds_the_slice_and_none_to_the_others(stage: Any) -> None:
    for name in "abc":
        stage.node(name)
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a", "b", "c")
    held = stage.ledger.reservation("uid-p").plan.node
    scores = stage.prioritize(pod, "a", "b", "c")
    assert scores == {held: 10}, "a node that is not listed gets no points"


def test_a_slice_held_on_a_node_that_is_out_moves_to_one_that_is_in(stage: Any) -> None:
    stage.node("a")
    stage.node("b")
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a", "b")
    held = stage.ledger.reservation("uid-p").plan.node
    other = "b" if held == "a" else "a"
    assert stage.prioritize(pod, other) == {other: 10}
    assert (stage.used(held), stage.used(other)) == ([0], [4000])


def test_a_hold_that_ran_out_is_decided_anew(stage: Any) -> None:
    stage.node("a")
    stage.node("b")
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a", "b")
    assert len(stage.ledger.expire(stage.now + 31)) == 1
    assert list(stage.prioritize(pod, "a", "b").values()) == [10]
    assert stage.ledger.reservation("uid-p") is not None


def test_a_follower_prefers_nothing(stage: Any) -> None:
    stage.node("a")
    stage.gate.follow("another replica decides")
    assert stage.prioritize(stage.pod("p", gpu=1), "a") == {}


def test_a_pod_without_cards_has_no_preference(stage: Any) -> None:
    stage.node("a")
    assert stage.prioritize(stage.pod("cpu"), "a") == {}


def test_a_body_that_is_no_call_is_malformed(stage: Any) -> None:
    with pytest.raises(Malformed):
        prioritize.answer(stage.engine, b"[")
    with pytest.raises(Malformed):
        prioritize.answer(stage.engine, b'{"NodeNames":["a"]}')
