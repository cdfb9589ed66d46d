"""/preempt: kube-scheduler's victims against the cards."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from hami.model.errors import Malformed
from hami.scheduler.verbs import preempt
from hami.scheduler.watch.records import pod_record, quota_record
from hami.wire.objects import Pod, ResourceQuota


def holder(stage: Any, name: str, mem: int, priority: int = 0, *, node: str = "a", card: int = 0) -> None:
    record = {"hami.io/vgpu-devices-allocated": f"GPU-{node}-{card},NVIDIA,{mem},0:;"}
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": record}
    spec = {"nodeName": node, "containers": [{"name": "c"}], "priority": priority}
    stage.ledger.set_pod(pod_record(msgspec.convert({"metadata": meta, "spec": spec}, Pod), stage.engine.vendors))


def ask(stage: Any, victims: dict[str, list[str]], priority: int = 10, **asks: int) -> dict[str, list[str]]:
    pod = stage.pod("vip", **asks)
    pod["spec"]["priority"] = priority
    given = {node: {"Pods": [{"UID": f"uid-{name}"} for name in names]} for node, names in victims.items()}
    body = {"Pod": pod, "NodeNameToVictims": None, "NodeNameToMetaVictims": given}
    answer = json.loads(asyncio.run(preempt.answer(stage.engine, json.dumps(body).encode())))
    return {
        node: [pod["UID"].removeprefix("uid-") for pod in chosen["Pods"]]
        for node, chosen in answer["NodeNameToMetaVictims"].items()
    }


def test_victims_that_make_room_stay_as_they_are(stage: Any) -> None:
    stage.node("a", mem=10000)
    holder(stage, "p", 8000)
    assert ask(stage, {"a": ["p"]}, gpu=1, gpumem=8000) == {"a": ["p"]}


def test_where_they_are_too_few_others_of_lower_priority_are_added(stage: Any) -> None:
    stage.node("a", mem=10000)
    holder(stage, "p", 4000)
    holder(stage, "q", 4000)
    assert ask(stage, {"a": ["p"]}, gpu=1, gpumem=8000) == {"a": ["p", "q"]}


def test_a_node_that_evicting_cannot_help_is_no_candidate(stage: Any) -> None:
    stage.node("a", mem=10000)
    holder(stage, "p", 4000)
    holder(stage, "peer", 6000, priority=10)
    assert ask(stage, {"a": ["p"], "unknown": []}, gpu=1, gpumem=8000) == {}


@pytest.mark.parametrize(("most", "expected"), [(15_999, {}), (16_000, {"a": ["p"]})])
def test_for_a_pod_that_its_quota_keeps_out_nobody_has_to_go(
    stage: Any, most: int, expected: dict[str, list[str]]
) -> None:
    stage.node("a", mem=10000)
    holder(stage, "p", 8000)
    spec = {"hard": {"limits.nvidia.com/gpumem": str(most)}}
    quota = msgspec.convert({"metadata": {"name": "q", "namespace": "default"}, "spec": spec}, ResourceQuota)
    stage.ledger.set_quota(quota_record(quota, stage.engine.vendors))
    assert ask(stage, {"a": ["p"]}, gpu=1, gpumem=8000) == expected


def test_nothing_is_changed_by_asking(stage: Any) -> None:
    stage.node("a", mem=10000)
    holder(stage, "p", 8000)
    ask(stage, {"a": ["p"]}, gpu=1, gpumem=8000)
    assert stage.used("a") == [8000]
    assert stage.ledger.recount() == []


def test_a_pod_without_cards_keeps_kube_scheduler_s_choice(stage: Any) -> None:
    assert ask(stage, {"z": ["p"]}) == {"z": ["p"]}


def test_whole_pods_as_victims_are_answered_by_uid(stage: Any) -> None:
    stage.node("a", mem=10000)
    holder(stage, "p", 8000)
    pod = stage.pod("vip", gpu=1, gpumem=8000)
    victims = {"a": {"Pods": [{"metadata": {"uid": "uid-p"}}], "NumPDBViolations": 2}}
    body = json.dumps({"Pod": pod, "NodeNameToVictims": victims}).encode()
    assert json.loads(asyncio.run(preempt.answer(stage.engine, body))) == {
        "NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "uid-p"}], "NumPDBViolations": 2}}
    }


def test_a_follower_offers_no_candidate_and_nonsense_is_malformed(stage: Any) -> None:
    stage.gate.follow("another replica decides")
    assert ask(stage, {"a": []}, gpu=1) == {}
    with pytest.raises(Malformed):
        asyncio.run(preempt.answer(stage.engine, b"{}"))


def ticking(stage: Any, seconds: float) -> None:
    """Each look at the clock takes so long."""

    def clock() -> float:
        stage.now += seconds
        return float(stage.now)

    object.__setattr__(stage.engine, "clock", clock)


def small_ones_beside_a_whole_one(stage: Any, node: str) -> None:
    """A dearer choice that is found at once, and a cheaper one that has to be looked for."""
    stage.node(node, cards=2, mem=8000)
    for number in range(4):
        holder(stage, f"{node}-{number}", 2000, node=node)
    holder(stage, f"{node}-whole", 8000, node=node, card=1)


def test_with_time_enough_the_fewest_go_on_each_node(stage: Any) -> None:
    for node in "ab":
        small_ones_beside_a_whole_one(stage, node)
    assert ask(stage, {"a": [], "b": []}, gpu=1, gpumem=8000) == {"a": ["a-whole"], "b": ["b-whole"]}


def test_a_node_that_needs_more_than_its_share_of_the_time_gives_what_makes_room(stage: Any) -> None:
    for node in "ab":
        small_ones_beside_a_whole_one(stage, node)
    ticking(stage, preempt.SECONDS / 5)
    found = ask(stage, {"a": [], "b": []}, gpu=1, gpumem=8000)
    assert [sorted(found["a"])] == [[f"a-{number}" for number in range(4)]]


def test_when_the_time_is_over_no_further_node_is_looked_at_but_until_one_is_found(stage: Any) -> None:
    stage.node("full", mem=8000)
    holder(stage, "peer", 8000, priority=10, node="full")
    for node in "abc":
        small_ones_beside_a_whole_one(stage, node)
    ticking(stage, preempt.SECONDS)
    found = ask(stage, {"full": [], "a": [], "b": [], "c": []}, gpu=1, gpumem=8000)
    assert {node: len(gone) for node, gone in found.items()} == {"a": 4}
