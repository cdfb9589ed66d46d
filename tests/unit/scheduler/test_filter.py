"""/filter: what kube-scheduler is told about each node, and what is held meanwhile."""

import json
from typing import Any

import msgspec
import pytest

from hami.model.errors import Conflict
from hami.scheduler.verbs import filter as filtering
from hami.scheduler.watch.records import pod_record
from hami.wire.objects import Pod


def test_all_feasible_nodes_come_back_and_the_slice_on_the_best_is_held(stage: Any) -> None:
    stage.node("a")
    stage.node("b")
    answer = stage.filter(stage.pod("p", gpu=1, gpumem=4000), "a", "b")
    assert answer["NodeNames"] == ["a", "b"]
    assert answer["Error"] == ""
    assert sorted(stage.used("a") + stage.used("b")) == [0, 4000]


def test_a_second_ask_sees_what_the_first_holds(stage: Any) -> None:
    stage.node("a", mem=6000)
    assert stage.filter(stage.pod("p", gpu=1, gpumem=4000), "a")["NodeNames"] == ["a"]
    answer = stage.filter(stage.pod("q", gpu=1, gpumem=4000), "a")
    assert answer["NodeNames"] == []
    assert answer["FailedNodes"] == {"a": "1/1 CardInsufficientMemory: missing 2000 MiB on the best card"}


def test_the_same_pod_asked_again_does_not_collide_with_its_own_hold(stage: Any) -> None:
    stage.node("a", mem=6000)
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a")
    assert stage.filter(pod, "a")["NodeNames"] == ["a"]
    assert stage.used("a") == [4000]


def test_a_pod_that_fits_nowhere_any_more_gives_up_what_it_held(stage: Any) -> None:
    stage.node("a")
    stage.node("full", mem=1000)
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a")
    stage.filter(pod, "full")
    assert stage.used("a") == [0]


def test_every_name_asked_about_gets_exactly_one_answer(stage: Any) -> None:
    stage.node("fits")
    stage.node("full", mem=1000)
    stage.node("silent", problem="the node's agent has not reported")
    answer = stage.filter(stage.pod("p", gpu=1, gpumem=4000), "fits", "full", "silent", "stranger")
    assert answer["NodeNames"] == ["fits"]
    assert set(answer["FailedNodes"]) == {"full"}
    assert answer["FailedAndUnresolvableNodes"] == {
        "silent": "node unregistered: the node's agent has not reported",
        "stranger": "node unregistered",
    }


def test_what_preemption_cannot_cure_is_told_apart(stage: Any) -> None:
    stage.node("one", cards=1)
    answer = stage.filter(stage.pod("p", gpu=2, gpumem=1000), "one")
    assert "NodeInsufficientDevice" in answer["FailedAndUnresolvableNodes"]["one"]
    assert not answer["FailedNodes"]


def test_a_pod_without_cards_passes_everywhere_and_holds_nothing(stage: Any) -> None:
    stage.node("a")
    answer = stage.filter(stage.pod("cpu"), "a", "stranger")
    assert answer["NodeNames"] == ["a", "stranger"]
    assert stage.ledger.reservation("uid-cpu") is None


def test_an_ask_that_makes_no_sense_is_refused_by_its_path_on_every_node(stage: Any) -> None:
    stage.node("a")
    answer = stage.filter(stage.pod("p", gpu=1, gpucores=101), "a", "b")
    assert answer["Error"] == ""
    assert set(answer["FailedAndUnresolvableNodes"]) == {"a", "b"}
    text = answer["FailedAndUnresolvableNodes"]["a"]
    assert "spec.containers[0]" in text
    assert "101" in text
    assert stage.figure("hami_scheduler_decisions_total", result="unusable") == 1


def test_whole_nodes_are_answered_with_whole_nodes(stage: Any) -> None:
    stage.node("a")
    stage.node("full", mem=1000)
    nodes = [{"metadata": {"name": name, "labels": {"x": "y"}}} for name in ("a", "full")]
    body = {"Pod": stage.pod("p", gpu=1, gpumem=4000), "Nodes": {"items": nodes}, "NodeNames": None}
    answer = json.loads(filtering.answer(stage.engine, json.dumps(body).encode()))
    assert answer["Nodes"]["items"] == [nodes[0]]
    assert answer["NodeNames"] is None
    assert stage.used("a") == [4000]


def test_a_replica_that_may_not_decide_says_why_and_holds_nothing(stage: Any) -> None:
    stage.node("a")
    stage.gate.follow("another replica decides")
    answer = stage.filter(stage.pod("p", gpu=1), "a")
    assert answer["Error"] == "leading: another replica decides"
    assert stage.used("a") == [0]


def test_a_body_without_a_pod_is_an_error_in_hamis_words(stage: Any) -> None:
    assert json.loads(filtering.answer(stage.engine, b'{"NodeNames":[]}'))["Error"] == "extender args missing pod"


def test_a_pod_whose_binding_has_no_answer_yet_may_only_go_where_it_was_sent(stage: Any) -> None:
    stage.node("a")
    stage.node("b")
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a")
    stage.ledger.binding("uid-p", stage.now, 120)
    answer = stage.filter(pod, "a", "b")
    assert answer["NodeNames"] == ["a"]
    assert answer["FailedNodes"] == {"b": "PodBindingElsewhere: to a"}
    assert stage.used("b") == [0]


def test_quantities_stay_out_of_the_texts_when_they_are_all_different(stage: Any) -> None:
    names = [f"n{number}" for number in range(40)]
    for number, name in enumerate(names):
        stage.node(name, mem=1000 + number)
    answer = stage.filter(stage.pod("p", gpu=1, gpumem=4000), *names)
    assert set(answer["FailedNodes"].values()) == {"1/1 CardInsufficientMemory"}


def test_refusals_are_told_in_events_once_and_counted_by_reason(stage: Any) -> None:
    stage.node("a", mem=1000)
    stage.node("b", mem=1000)
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a", "b")
    stage.filter(pod, "a", "b")
    assert stage.events.told == [
        ("default/p", "Warning", "FilteringFailed", "no available node, 2 nodes do not meet"),
        ("default/p", "Warning", "FilteringFailed", "2 nodes CardInsufficientMemory(a,b)"),
    ]
    assert stage.figure("hami_scheduler_node_rejections_total", reason="CardInsufficientMemory") == 4
    assert len(stage.engine.waiting) == 1


def test_a_placed_pod_waits_no_more(stage: Any) -> None:
    stage.node("a", mem=1000)
    pod = stage.pod("p", gpu=1, gpumem=4000)
    stage.filter(pod, "a")
    stage.node("a", mem=8000)
    stage.filter(pod, "a")
    assert len(stage.engine.waiting) == 0
    assert stage.events.told[-1][2:] == ("FilteringSucceed", "find fit node(a), 0 nodes not fit, 1 nodes fit(a:0.00)")


def test_a_pod_that_is_bound_already_is_not_placed_twice(stage: Any) -> None:
    # kube-scheduler may ask with an old pod while the watch has shown us the new one.
    stage.node("a")
    pod = stage.pod("p", gpu=1, gpumem=4000)
    record = {"hami.io/vgpu-devices-allocated": "GPU-a-0,NVIDIA,4000,0:;"}
    bound = {"metadata": {**pod["metadata"], "annotations": record}, "spec": {**pod["spec"], "nodeName": "a"}}
    stage.ledger.set_pod(pod_record(msgspec.convert(bound, Pod), stage.engine.vendors))
    with pytest.raises(Conflict, match="already bound to a"):
        stage.filter(pod, "a")
    assert stage.used("a") == [4000]


def test_a_pod_of_more_containers_than_can_be_decided_about_is_refused_on_every_node(stage: Any) -> None:
    """One of a thousand init containers was a fault of ours, each time it was asked about."""
    stage.node("a")
    pod = stage.pod("p", gpu=1, gpumem=10)
    pod["spec"]["initContainers"] = pod["spec"]["containers"] * 1000
    why = stage.filter(pod, "a", "b")["FailedAndUnresolvableNodes"]
    assert set(why) == {"a", "b"}
    assert "1001 that ask for cards" in why["a"]
