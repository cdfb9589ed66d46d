"""Preemption: who is evicted for whom, that budgets hold, and that others are served meanwhile (6.18)."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from hami.kube.errors import Forbidden
from hami.model.ask import Ask
from hami.model.errors import Bug
from hami.model.ids import PodUid
from hami.scheduler.evict import BUDGET_AGAIN, CHOOSING_S, ROUND_S
from hami.scheduler.verbs import preempt
from hami.scheduler.watch.records import quota_record
from hami.wire.objects import Pod, ResourceQuota

from .evictions import Scene


@pytest.fixture
def scene(stage: Any) -> Scene:
    stage.node("a", mem=10000)
    return Scene(stage)


async def test_the_fewest_and_least_important_go_after_a_dry_run(scene: Scene) -> None:
    scene.holder("low", 4000, 1)
    scene.holder("lower", 4000, 0)
    scene.waits("vip", 6000, 10)
    assert await scene.evicted() == ["lower"]
    assert scene.api.dry == ["lower"]
    assert {("default/lower", "Preempted"), ("default/vip", "Preempting")} <= {
        (pod, reason) for pod, _, reason, _ in scene.stage.events.told
    }
    assert scene.stage.figure("hami_scheduler_preemptions_total") == 1
    await scene.evictor.round()
    assert scene.api.done == ["lower"], "once"


async def test_nobody_goes_for_an_equal_or_for_one_who_may_not_preempt(scene: Scene) -> None:
    scene.holder("peer", 8000, 10)
    scene.waits("equal", 6000, 10)
    scene.waits("never", 6000, 20, preemptionPolicy="Never")
    assert await scene.evicted() == []


async def test_only_nodes_that_kube_scheduler_offered_are_looked_at(scene: Scene) -> None:
    scene.stage.node("b", mem=10000)
    scene.holder("on-a", 8000, 1)
    scene.holder("on-b", 8000, 0, node="b")
    scene.waits("vip", 6000, 10, "a")
    assert await scene.evicted() == ["on-a"]


@pytest.mark.parametrize(("seconds", "gone"), [(0.0, "on-b"), (CHOOSING_S, "on-a")])
async def test_when_the_time_for_one_pod_is_over_the_best_so_far_is_taken(
    scene: Scene, seconds: float, gone: str
) -> None:
    """Each look at the clock takes so long. On the node before them, who may go does not make room enough."""
    scene.holder("peer", 8000, 10)
    scene.holder("little", 1000)
    for node, priority in (("b", 0), ("a-first", 5)):
        scene.stage.node(node, mem=10000)
        scene.holder(f"on-{node[0]}", 8000, priority, node=node)
    scene.waits("vip", 6000, 10, "a", "a-first", "b")
    choice = scene.stage.engine.waiting.get(PodUid("uid-vip"))

    def clock() -> float:
        scene.stage.now += seconds
        return float(scene.stage.now)

    object.__setattr__(scene.stage.engine, "clock", clock)
    found = await scene.evictor.choose(choice.ask, choice.offered)
    assert found is not None
    assert [victim.pod.name for victim in found.victims] == [gone]


async def test_the_node_where_least_is_lost_is_taken(scene: Scene) -> None:
    scene.stage.node("b", mem=10000)
    scene.holder("on-a", 8000, 5)
    scene.holder("on-b", 8000, 3, node="b")
    scene.waits("vip", 6000, 10, "a", "b")
    assert await scene.evicted() == ["on-b"]


async def test_a_disruption_budget_is_kept_and_others_go_instead(scene: Scene) -> None:
    scene.holder("kept", 5000, 0)
    scene.holder("other", 5000, 1)
    scene.api.budgets = {"kept"}
    scene.waits("vip", 5000, 10)
    assert await scene.evicted() == ["other"]


async def test_where_only_budgets_stand_in_the_way_nobody_goes_until_they_give_way(scene: Scene) -> None:
    scene.holder("kept", 5000)
    scene.holder("free", 5000)
    scene.api.budgets = {"kept"}
    scene.waits("vip", 10000, 10)
    assert await scene.evicted() == []
    scene.api.budgets = set()
    await scene.evictor.round()
    assert scene.api.done == [], "a refusal is believed for a while"
    scene.stage.now += BUDGET_AGAIN
    assert sorted(await scene.evicted()) == ["free", "kept"], "without being asked about again"


def budget(app: str, allowed: int) -> dict[str, Any]:
    meta = {"namespace": "default", "name": app}
    spec = {"selector": {"matchLabels": {"app": app}}}
    return {"metadata": meta, "spec": spec, "status": {"disruptionsAllowed": allowed}}


async def test_a_budget_is_counted_over_all_who_go_together(scene: Scene) -> None:
    """Each dry run alone is allowed: one of the two web pods may go, not both."""
    for name in ("web-1", "web-2"):
        scene.holder(name, 4000, 0)
    scene.holder("job-1", 2000, 1)
    scene.api.shared = [budget("web", 1)]
    scene.waits("vip", 8000, 10)
    assert await scene.evicted() == []
    assert list(scene.stage.engine.nominations) == []


async def test_others_go_in_place_of_those_a_budget_keeps(scene: Scene) -> None:
    """The more important of those that are too many stays."""
    for number, name in enumerate(("web-1", "web-2", "job-1")):
        scene.holder(name, 3000, number)
    scene.api.shared = [budget("web", 1)]
    scene.waits("vip", 6000, 10)
    assert sorted(await scene.evicted()) == ["job-1", "web-1"]


async def test_as_many_as_a_budget_allows_go_at_once(scene: Scene) -> None:
    for name in ("web-1", "web-2"):
        scene.holder(name, 5000)
    scene.api.shared = [budget("web", 2), budget("job", 0)]
    scene.waits("vip", 10000, 10)
    assert sorted(await scene.evicted()) == ["web-1", "web-2"]


@pytest.mark.parametrize("free", ["unready", "missing"])
async def test_who_serves_nobody_takes_nothing_of_a_budget(scene: Scene, free: str) -> None:
    for name in ("web-1", "web-2"):
        scene.holder(name, 5000)
    scene.api.shared = [budget("web", 1)]
    getattr(scene.api, free).add("web-1")
    scene.waits("vip", 10000, 10)
    await scene.evicted()
    assert "web-2" in scene.api.done


async def test_who_may_not_read_budgets_evicts_one_but_not_several(scene: Scene) -> None:
    scene.api.unreadable = Forbidden(403, "Forbidden", "poddisruptionbudgets")
    for name in ("a-1", "b-1"):
        scene.holder(name, 5000)
    scene.waits("vip", 10000, 10)
    assert await scene.evicted() == []
    scene.stage.now += BUDGET_AGAIN
    scene.waits("small", 5000, 10)
    assert len(await scene.evicted()) == 1


async def test_a_victim_that_has_gone_meanwhile_is_no_obstacle(scene: Scene) -> None:
    scene.holder("gone", 5000)
    scene.holder("there", 5000)
    scene.api.missing = {"gone"}
    scene.waits("vip", 10000, 10)
    assert await scene.evicted() == ["there"]


async def test_a_follower_evicts_nobody(scene: Scene) -> None:
    scene.holder("low", 8000)
    scene.waits("vip", 6000, 10)
    scene.stage.gate.follow("another replica decides")
    assert await scene.evicted() == []


async def test_victims_of_a_preempt_call_are_never_none_at_all(stage: Any) -> None:
    """kube-scheduler takes a node without a victim for a fault that ends the whole attempt."""
    stage.node("a", mem=10000)
    body = {"Pod": stage.pod("vip", gpu=1, gpumem=100), "NodeNameToMetaVictims": {"a": {"Pods": []}}}
    answer = json.loads(await preempt.answer(stage.engine, json.dumps(body).encode()))
    assert answer == {"NodeNameToMetaVictims": {}}


async def test_nobody_goes_for_a_pod_that_got_its_room_while_others_were_looked_at(scene: Scene) -> None:
    scene.stage.node("b", mem=20000)
    scene.holder("on-a", 8000, node="a")
    scene.holder("on-b", 18000, node="b")
    scene.waits("first", 6000, 20, "a")
    second = scene.waits("second", 6000, 10, "b")

    def comes_free(_: str) -> None:
        scene.stage.ledger.drop_pod(PodUid("uid-on-b"))
        assert scene.stage.filter(second, "b")["NodeNames"] == ["b"]
        scene.holder("next", 14000, node="b")

    scene.api.between = comes_free
    assert await scene.evicted() == ["on-a"]
    assert scene.api.dry == ["on-a"]


@pytest.mark.parametrize("turn", ["another replica decides", "it was placed"])
async def test_who_no_longer_waits_or_decides_once_the_dry_run_is_over_evicts_nobody(scene: Scene, turn: str) -> None:
    scene.holder("low", 8000)
    scene.waits("vip", 6000, 10)

    def turns(_: str) -> None:
        if turn == "another replica decides":
            scene.stage.gate.follow(turn)
        else:
            scene.stage.engine.waiting.settled(PodUid("uid-vip"))

    scene.api.between = turns
    assert await scene.evicted() == []
    assert scene.api.dry == ["low"]


async def test_a_round_ends_after_a_while_and_the_next_one_goes_on_with_the_most_important(scene: Scene) -> None:
    for place, node in enumerate("abc"):
        scene.stage.node(node, mem=10000)
        scene.holder(f"on-{node}", 8000, node=node)
        scene.waits(f"vip-{node}", 6000, 20 - place, node) if node != "c" else None

    def slow(_: str) -> None:
        scene.stage.now += ROUND_S

    scene.api.between = slow
    assert await scene.evicted() == ["on-a"]
    scene.waits("vip-c", 6000, 30, "c")
    assert await scene.evicted() == ["on-a", "on-c"]
    assert await scene.evicted() == ["on-a", "on-c", "on-b"]


async def test_the_search_for_victims_gives_way_to_other_requests_every_millisecond(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in slices of no time at all: each step is then one."""
    monkeypatch.setattr("hami.scheduler.loop.unhurried.SLICE_S", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for number in range(10):
        scene.holder(f"p{number}", 1000)
    pod = scene.waits("vip", 6000, 10)
    beside = asyncio.create_task(others())
    ask = scene.stage.engine.ask(msgspec.convert(pod, Pod))
    choice = await scene.evictor.choose(ask, ["a"])
    by_evictor, turns = turns, 0
    body = {"Pod": pod, "NodeNameToMetaVictims": {"a": {"Pods": []}}}
    answer = json.loads(await preempt.answer(scene.stage.engine, json.dumps(body).encode()))
    beside.cancel()
    assert choice is not None
    assert len(choice.victims) == len(answer["NodeNameToMetaVictims"]["a"]["Pods"]) == 6
    assert by_evictor > 10
    assert turns > 10


async def test_a_fault_over_one_pod_keeps_no_other_from_its_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene.stage.node("b", mem=10000)
    scene.holder("on-a", 8000, node="a")
    scene.holder("on-b", 8000, node="b")
    scene.waits("odd", 6000, 20, "a")
    scene.waits("vip", 6000, 10, "b")
    choose = scene.evictor.choose

    async def faulty(ask: Ask, offered: Sequence[str]) -> object:
        if ask.pod.name == "odd":
            raise Bug("no container lacks cards, and yet there is no plan")
        return await choose(ask, offered)

    monkeypatch.setattr(scene.evictor, "choose", faulty)
    assert await scene.evicted() == ["on-b"]
    assert "no room is made for pod default/odd" in caplog.text


@pytest.mark.parametrize(("most", "expected"), [(5999, []), (6000, ["low"])])
async def test_nobody_goes_for_a_pod_that_its_quota_keeps_out_anyway(
    scene: Scene, most: int, expected: list[str]
) -> None:
    scene.holder("low", 8000)
    limit = {"hard": {"limits.nvidia.com/gpumem": str(8000 + most)}}  # of which low has 8000
    quota = msgspec.convert({"metadata": {"name": "q", "namespace": "default"}, "spec": limit}, ResourceQuota)
    scene.stage.ledger.set_quota(quota_record(quota, scene.stage.engine.vendors))
    scene.waits("vip", 6000, 10)
    assert await scene.evicted() == expected
