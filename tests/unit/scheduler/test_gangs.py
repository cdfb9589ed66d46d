"""Gangs: all or none, in /filter and in /bind (6.17)."""

import asyncio
from random import Random
from typing import Any, cast

import msgspec
import pytest

from hami.kube.client import Kube
from hami.kube.reflector import Added, Deleted
from hami.model.ask import Gang
from hami.model.ids import PodUid
from hami.scheduler.app import Scheduler
from hami.scheduler.requeue import Waker
from hami.scheduler.settings import Settings
from hami.scheduler.watch.sync import PodDoor
from hami.vendors.gang import doubts, gang_of
from hami.wire.objects import Metadata, Pod

ALLOCATED = "hami.io/vgpu-devices-allocated"
GROUP, LEAST = "scheduling.x-k8s.io/pod-group", "scheduling.x-k8s.io/min-member"


@pytest.mark.parametrize(
    ("labels", "annotations", "gang"),
    [
        ({GROUP: "g"}, {LEAST: "4"}, Gang("g", 4)),
        ({}, {GROUP: "g", LEAST: " 4 "}, Gang("g", 4)),
        (
            {"pod-group.scheduling.sigs.k8s.io/name": "g", "pod-group.scheduling.sigs.k8s.io/min-available": "2"},
            {},
            Gang("g", 2),
        ),
        (
            {"pod-group.scheduling.sigs.k8s.io": "g", "pod-group.scheduling.sigs.k8s.io/min-member": "3"},
            {},
            Gang("g", 3),
        ),
        ({GROUP: "g"}, {}, None),
        ({GROUP: "g"}, {LEAST: "1"}, None),
        ({GROUP: "g"}, {LEAST: "many"}, None),
        ({GROUP: "g"}, {LEAST: "99999"}, None),
        ({}, {LEAST: "3"}, None),
    ],
)
def test_a_gang_is_named_as_coscheduling_names_it(
    labels: dict[str, str], annotations: dict[str, str], gang: Gang | None
) -> None:
    metadata = Metadata(labels=labels, annotations=annotations)
    assert gang_of(metadata) == gang
    named = bool(labels or GROUP in annotations)
    single = (labels | annotations).get(LEAST) == "1"
    assert bool(doubts(metadata)) == (named and gang is None and not single)


class Scene:
    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.waker = Waker(stage.engine, stage.api, lambda: 1.0)
        stage.engine.gangs.call = self.waker.call
        self.door = PodDoor(
            stage.ledger,
            stage.engine.vendors,
            stage.engine.waiting,
            stage.gate,
            self.waker.freed,
            seen=stage.engine.see,
            gone=stage.engine.gangs.gone,
            began=stage.engine.gangs.begin,
        )

    def member(self, name: str, gang: str = "g", least: int = 4, mem: int = 5000) -> dict[str, Any]:
        """A pod the watch has told of."""
        pod: dict[str, Any] = self.stage.pod(name, annotations={LEAST: str(least)}, gpu=1, gpumem=mem)
        pod["metadata"]["labels"] = {GROUP: gang}
        self.door(Added(msgspec.convert(pod, Pod)))
        return pod

    def members(self, *names: str, **more: Any) -> list[dict[str, Any]]:
        return [self.member(name, **more) for name in names]

    def held(self) -> set[str]:
        return {hold.plan.pod.name for hold in self.stage.ledger.reservations()}

    async def waiting(self, *pods: dict[str, Any]) -> list["asyncio.Task[str]"]:
        """Their binds to node a, each by now in wait for who is still to come."""
        binds = [asyncio.create_task(self.stage.bind(pod, "a")) for pod in pods]
        await asyncio.sleep(0.01)
        return binds

    def why(self, pod: dict[str, Any], *nodes: str) -> str:
        answer = self.stage.filter(pod, *nodes)
        assert not answer["NodeNames"]
        text: str = (answer["FailedAndUnresolvableNodes"] or answer["FailedNodes"])[nodes[0]]
        return text


@pytest.fixture
def scene(stage: Any) -> Scene:
    return Scene(stage)


def test_where_three_of_four_fit_none_holds_anything(scene: Scene) -> None:  # 6.17
    scene.stage.node("a", mem=15000)
    pods = scene.members("p0", "p1", "p2", "p3")
    assert scene.why(pods[0], "a") == "GangIncomplete: gang g: 3 of 4 fit"
    assert scene.held() == set()


def test_where_all_fit_all_hold_and_go_where_they_hold(scene: Scene) -> None:
    scene.stage.node("a", mem=10000)
    scene.stage.node("b", mem=10000)
    pods = scene.members("p0", "p1", "p2", "p3")
    nodes = [scene.stage.filter(pods[0], "a", "b")["NodeNames"]]
    assert scene.held() == {"p0", "p1", "p2", "p3"}
    nodes += [scene.stage.filter(pod, "a", "b")["NodeNames"] for pod in pods[1:]]
    assert sorted(node for (node,) in nodes) == ["a", "a", "b", "b"]


def test_before_enough_have_come_the_refusal_says_so(scene: Scene) -> None:
    scene.stage.node("a", mem=50000)
    first, _ = scene.members("p0", "p1")
    assert scene.why(first, "a") == "GangIncomplete: gang g: 2 of 4 fit, 2 have been created"


async def test_the_last_to_come_calls_the_others(scene: Scene) -> None:
    scene.stage.node("a", mem=50000)
    for pod in scene.members("p0", "p1", "p2"):
        scene.why(pod, "a")
    assert scene.stage.filter(scene.member("p3"), "a")["NodeNames"] == ["a"]
    await scene.waker.round()
    assert sorted(path.rpartition("/")[2] for path, _ in scene.stage.api.patches) == ["p0", "p1", "p2"]


def test_two_gangs_never_hold_half_each(scene: Scene) -> None:
    scene.stage.node("a", mem=30000)
    one, two = scene.members("a0", "a1", "a2", "a3"), scene.members("b0", "b1", "b2", "b3", gang="h")
    assert scene.stage.filter(one[0], "a")["NodeNames"] == ["a"]
    assert scene.why(two[0], "a") == "GangIncomplete: gang h: 2 of 4 fit"
    assert scene.held() == {"a0", "a1", "a2", "a3"}


def test_more_than_the_least_may_come_and_only_the_least_must_fit(scene: Scene) -> None:
    scene.stage.node("a", mem=10000)
    pods = scene.members("p0", "p1", "p2", least=2)
    assert scene.stage.filter(pods[0], "a")["NodeNames"] == ["a"]
    assert scene.held() == {"p0", "p1"}
    assert "CardInsufficientMemory" in scene.why(pods[2], "a")


def test_members_that_run_count(scene: Scene) -> None:
    scene.stage.node("a", mem=10000)
    for name in ("r0", "r1", "r2"):
        pod = scene.stage.pod(name, annotations={LEAST: "4"}, gpu=1, gpumem=100)
        pod["metadata"]["labels"] = {GROUP: "g"}
        pod["spec"]["nodeName"] = "elsewhere"
        scene.door(Added(msgspec.convert(pod, Pod)))
    fourth = scene.member("p3")
    assert scene.stage.filter(fourth, "a")["NodeNames"] == ["a"]
    scene.door(Deleted("default", "r0", "uid-r0"))
    scene.stage.ledger.release("uid-p3")
    assert scene.why(fourth, "a") == "GangIncomplete: gang g: 3 of 4 fit, 3 have been created"


def begun_anew(scene: Scene) -> None:
    """A scheduler that was killed starts again: the watch has told all it knows, then the gate opens."""
    scene.stage.gate.opened = lambda: scene.stage.engine.gangs.resume(scene.stage.engine.node_names())
    scene.stage.gate.rebuild()
    for part in ("nodes", "pods"):
        scene.stage.gate.rebuilt(part)


def test_the_rest_of_a_gang_whose_scheduler_was_killed_between_bindings_comes_before_anybody_else(
    scene: Scene,
) -> None:
    scene.stage.node("a", mem=20000)
    for name in ("p0", "p1"):
        pod = scene.stage.pod(name, annotations={LEAST: "4"}, gpu=1, gpumem=5000)
        pod["metadata"]["labels"] = {GROUP: "g"}
        pod["spec"]["nodeName"] = "elsewhere"
        scene.door(Added(msgspec.convert(pod, Pod)))
    scene.members("p2", "p3")
    begun_anew(scene)
    assert scene.held() == {"p2", "p3"}
    greedy = scene.stage.pod("greedy", gpu=1, gpumem=15000)
    assert "CardInsufficientMemory: missing 5000 MiB" in scene.why(greedy, "a")


def test_who_holds_already_when_the_gate_opens_again_keeps_it_and_the_others_get_theirs(scene: Scene) -> None:
    """The API server was away in the middle of a gang: one is bound, one Binding is on its way, two were not sent."""
    scene.stage.node("a", mem=20000)
    scene.members("p1", "p2", "p3")
    pod = scene.stage.pod("p0", annotations={LEAST: "4"}, gpu=1, gpumem=5000)
    pod["metadata"]["labels"] = {GROUP: "g"}
    pod["spec"]["nodeName"] = "elsewhere"
    scene.door(Added(msgspec.convert(pod, Pod)))
    scene.stage.engine.gangs.resume(["a"])
    sent = scene.stage.ledger.binding(PodUid("uid-p1"), scene.stage.now, 30)
    for name in ("p2", "p3"):
        scene.stage.ledger.release(PodUid(f"uid-{name}"))
    begun_anew(scene)
    assert scene.held() == {"p1", "p2", "p3"}
    assert scene.stage.ledger.reservation(PodUid("uid-p1")) == sent


def test_a_gang_that_has_not_begun_or_cannot_be_whole_holds_nothing_at_a_start(scene: Scene) -> None:
    scene.stage.node("a", mem=12000)
    scene.members("p0", "p1", gang="waits", least=2)
    begun = scene.stage.pod("q0", annotations={LEAST: "4"}, gpu=1, gpumem=5000)
    begun["metadata"]["labels"] = {GROUP: "large"}
    begun["spec"]["nodeName"] = "elsewhere"
    scene.door(Added(msgspec.convert(begun, Pod)))
    scene.members("q1", "q2", "q3", gang="large")
    begun_anew(scene)
    assert scene.held() == set()


def test_a_fault_over_one_gang_ends_no_start(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.stage.node("a", mem=20000)
    pod = scene.stage.pod("p0", annotations={LEAST: "2"}, gpu=1, gpumem=5000)
    pod["metadata"]["labels"] = {GROUP: "g"}
    pod["spec"]["nodeName"] = "elsewhere"
    scene.door(Added(msgspec.convert(pod, Pod)))
    scene.member("p1", least=2)
    monkeypatch.setattr(scene.stage.ledger, "reserve", lambda *_: 1 / 0)
    begun_anew(scene)
    assert scene.stage.gate.closed is None


def test_members_that_are_deleted_are_planned_for_no_more(scene: Scene) -> None:
    scene.stage.node("a", mem=50000)
    pods = scene.members("p0", "p1", "p2", "p3")
    scene.door(Deleted("default", "p3", "uid-p3"))
    assert "3 of 4 fit" in scene.why(pods[0], "a")
    scene.stage.engine.gangs.begin()
    assert "1 of 4 fit" in scene.why(pods[0], "a")


def test_a_gang_of_another_namespace_is_another_gang(scene: Scene) -> None:
    scene.stage.node("a", mem=50000)
    scene.members("p0", "p1", "p2")
    stranger = scene.stage.pod("p3", annotations={LEAST: "4"}, gpu=1, gpumem=100)
    stranger["metadata"] |= {"namespace": "other", "labels": {GROUP: "g"}}
    assert "1 of 4 fit" in scene.why(stranger, "a")


def test_a_member_whose_node_kube_scheduler_takes_away_is_planned_anew(scene: Scene) -> None:
    for node in ("a", "b"):
        scene.stage.node(node, mem=20000)
    pods = scene.members("p0", "p1", "p2", "p3")
    (node,) = scene.stage.filter(pods[0], "a", "b")["NodeNames"]
    other = "b" if node == "a" else "a"
    assert scene.stage.filter(pods[0], other)["NodeNames"] == [other]
    assert scene.held() == {"p0", "p1", "p2", "p3"}
    scene.stage.node("b", mem=100)
    scene.stage.node("a", mem=100)
    scene.stage.now += 1000
    scene.stage.ledger.expire(scene.stage.now)
    assert "0 of 4 fit" in scene.why(pods[0], other)


async def test_a_bind_waits_for_the_others(scene: Scene) -> None:
    stage = scene.stage
    stage.node("a", mem=50000)
    pods = scene.members("p0", "p1", "p2", "p3")
    for pod in pods:
        stage.filter(pod, "a")
    first = await scene.waiting(*pods[:3])
    assert stage.api.bindings == []
    assert await stage.bind(pods[3], "a") == ""
    assert await asyncio.gather(*first) == ["", "", ""]
    assert len(stage.api.bindings) == 4
    late = scene.member("p4")
    assert stage.filter(late, "a")["NodeNames"] == ["a"]
    assert await stage.bind(late, "a") == "", "who comes later waits for nobody"


async def test_a_node_that_fails_while_members_wait_gets_none_of_them(scene: Scene) -> None:
    stage = scene.stage
    stage.node("a", mem=50000)
    pods = scene.members("p0", "p1", "p2", "p3")
    for pod in pods:
        stage.filter(pod, "a")
    waiting = await scene.waiting(*pods[:3])
    stage.node("a", mem=50000, problem="its agent is silent")
    said = [await stage.bind(pods[3], "a"), *await asyncio.gather(*waiting)]
    assert all("its agent is silent" in one for one in said)
    assert (stage.api.bindings, scene.held()) == ([], set())
    stage.node("a", mem=50000)
    for pod in pods:
        stage.filter(pod, "a")
    assert await asyncio.gather(*(stage.bind(pod, "a") for pod in pods)) == [""] * 4


@pytest.mark.parametrize("elsewhere", ["b", "a"])
async def test_a_member_whose_hold_was_made_anew_while_it_waited_gets_what_is_held_for_it(
    scene: Scene, elsewhere: str
) -> None:
    """Holds run out while one of four waits in /bind for the others; the next /filter holds for all of them again."""
    stage = scene.stage
    for node in ("a", "b"):
        stage.node(node, cards=2, mem=20000)
    pods = scene.members("p0", "p1", "p2", "p3")
    stage.filter(pods[0], "a")
    (first,) = await scene.waiting(pods[0])
    stage.now += 1000
    stage.ledger.expire(stage.now)
    stage.filter(pods[1], elsewhere)
    assert await asyncio.gather(first, *(stage.bind(pod, elsewhere) for pod in pods[1:])) == [""] * 4
    held = {
        hold.plan.pod.name: (hold.plan.node, hold.plan.containers[0][0].card) for hold in stage.ledger.reservations()
    }
    given = {
        one["metadata"]["name"]: (one["target"]["name"], one["metadata"]["annotations"][ALLOCATED].partition(",")[0])
        for one in stage.api.bindings
    }
    assert given == held
    assert len(held) == 4


@pytest.mark.looptime
async def test_who_waits_too_long_is_refused_and_all_give_back(scene: Scene) -> None:
    stage = scene.stage
    stage.node("a", mem=50000)
    pods = scene.members("p0", "p1", "p2", "p3")
    for pod in pods:
        stage.filter(pod, "a")
    said = await asyncio.gather(*(stage.bind(pod, "a") for pod in pods[:3]))
    assert "gang g: 3 of 4 came within 20 s; all give back what they held" in said
    assert all("gang g: " in one for one in said)
    assert stage.api.bindings == []
    assert scene.held() == set()
    for pod in pods:
        stage.filter(pod, "a")
    assert await asyncio.gather(*(stage.bind(pod, "a") for pod in pods)) == [""] * 4


async def test_a_pod_without_a_gang_waits_for_nobody(scene: Scene) -> None:
    scene.stage.node("a", mem=50000)
    pod = scene.stage.pod("p", gpu=1, gpumem=100)
    scene.stage.filter(pod, "a")
    assert await scene.stage.bind(pod, "a") == ""


@pytest.mark.parametrize("seed", range(40))
async def test_in_random_runs_no_gang_is_ever_half_started(stage: Any, seed: int) -> None:
    """Gangs come, are asked about in any order, end, and give back: what is held is held whole."""
    random, scene = Random(seed), Scene(stage)
    for node in ("a", "b"):
        stage.node(node, cards=2, mem=10000)
    gangs = {
        name: scene.members(
            *(f"{name}{n}" for n in range(least)), gang=name, least=least, mem=random.choice((3000, 5000))
        )
        for name, least in (("x", 2), ("y", 3), ("z", 4), ("w", 5))
    }
    for _ in range(40):
        name = random.choice(sorted(gangs))
        pods = gangs[name]
        if random.random() < 0.75:
            stage.filter(random.choice(pods), *random.sample(("a", "b"), random.choice((1, 2, 2))))
        elif random.random() < 0.5:
            for pod in pods:
                stage.ledger.release(pod["metadata"]["uid"])
        else:
            stage.now += random.choice((1, 100))
            stage.ledger.expire(stage.now)
        holding = scene.held()
        for pods in gangs.values():
            mine = [pod["metadata"]["name"] in holding for pod in pods]
            assert all(mine) or not any(mine)


def test_a_replica_takes_gangs_up_again_each_time_it_may_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Scheduler(Settings(extender_auth="none"), cast("Kube", object()))
    taken_up: list[object] = []
    monkeypatch.setattr(replica.engine.gangs, "resume", taken_up.append)
    for part in ("nodes", "pods"):
        replica.gate.rebuilt(part)
    assert taken_up == []
    replica.gate.lead()
    assert (taken_up, replica.gate.closed) == ([[]], None)
    replica.gate.rebuilt("pods")
    replica.gate.follow("another replica decides")
    assert len(taken_up) == 1
    replica.gate.lead()
    assert len(taken_up) == 2
