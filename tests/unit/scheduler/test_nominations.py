"""The room that was made by eviction: for whom it is kept, how long, and who may take it all the same (6.18)."""

import json
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from hami.model.ask import Ask
from hami.plan.choose import Decision
from hami.scheduler.engine import BESIDE
from hami.scheduler.held.nominate import LASTS
from hami.wire.annotations import NOMINATED
from hami.wire.objects import Pod

from .evictions import UNIX, Scene


@pytest.fixture
def scene(stage: Any) -> Scene:
    stage.node("a", mem=10000)
    return Scene(stage)


async def test_the_room_is_kept_for_whom_it_was_made(scene: Scene) -> None:
    stage = scene.stage
    scene.holder("low", 8000)
    vip = scene.waits("vip", 6000, 10)
    await scene.evicted()
    stage.ledger.drop_pod("uid-low")
    answer = stage.filter(stage.pod("sneak", gpu=1, gpumem=6000), "a")
    assert answer["FailedNodes"] == {"a": "NodeNominatedToPod: room is being made there for default/vip"}
    assert stage.filter(stage.pod("beside", gpu=1, gpumem=4000), "a")["NodeNames"] == ["a"], "what is left over is free"
    assert stage.filter(vip, "a")["NodeNames"] == ["a"]
    assert list(stage.engine.nominations) == []


async def test_somebody_less_important_goes_elsewhere_if_there_is_room(scene: Scene) -> None:
    stage = scene.stage
    scene.holder("low", 8000)
    scene.waits("vip", 6000, 10)
    await scene.evicted()
    stage.ledger.drop_pod("uid-low")
    stage.node("b", mem=10000)
    answer = stage.filter(stage.pod("sneak", gpu=1, gpumem=6000), "a", "b", "stranger")
    assert answer["NodeNames"] == ["b"]
    assert set(answer["FailedNodes"] | answer["FailedAndUnresolvableNodes"]) == {"a", "stranger"}


async def test_of_many_nodes_on_which_room_is_made_those_are_taken_that_have_more_and_are_no_burden(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = scene.stage
    nodes = [f"n{number}" for number in range(BESIDE)]
    for number, node in enumerate(nodes):
        stage.node(node, mem=10000 + number * 500)
        scene.holder(f"low-{node}", 8000, node=node)
        scene.waits(f"vip-{node}", 6000, 10, node)
    await scene.evictor.round()
    for node in nodes:
        stage.ledger.drop_pod(f"uid-low-{node}")
    decided: list[int] = []
    decide = stage.ledger.decide

    def counted(ask: Ask, names: Sequence[str]) -> Decision:
        decided.append(len(names))
        return cast("Decision", decide(ask, names))

    monkeypatch.setattr(stage.ledger, "decide", counted)
    answer = stage.filter(stage.pod("beside", gpu=1, gpumem=7000), *nodes, "stranger")
    assert answer["NodeNames"] == [nodes[-2], nodes[-1]], "of 13000 and 13500 MiB"
    assert set(answer["FailedNodes"]) == set(nodes[:-2])
    assert decided == [BESIDE + 1, 1, 2]
    answer = stage.filter(stage.pod("large", gpu=1, gpumem=8000), *nodes, "stranger")
    assert answer["NodeNames"] == []
    assert answer["FailedNodes"]["n0"] == "NodeNominatedToPod: room is being made there for default/vip-n0"


async def test_a_gang_does_not_take_the_room_either(scene: Scene) -> None:
    scene.holder("low", 8000)
    scene.waits("vip", 6000, 10)
    await scene.evicted()
    scene.stage.ledger.drop_pod("uid-low")
    named = {"scheduling.x-k8s.io/pod-group": "g", "scheduling.x-k8s.io/min-member": "2"}
    answer = None
    for name in ("g1", "g2"):
        answer = scene.stage.filter(scene.stage.pod(name, annotations=named, gpu=1, gpumem=3000), "a")
    assert answer is not None
    assert answer["FailedAndUnresolvableNodes"] == {"a": "GangIncomplete: gang g: 1 of 2 fit"}


async def test_a_more_important_pod_may_take_the_room(scene: Scene) -> None:
    scene.holder("low", 8000)
    scene.waits("vip", 6000, 10)
    await scene.evicted()
    scene.stage.ledger.drop_pod("uid-low")
    pod = scene.stage.pod("king", gpu=1, gpumem=6000)
    pod["spec"]["priority"] = 100
    assert scene.stage.filter(pod, "a")["NodeNames"] == ["a"]


async def test_a_nomination_ends_with_its_pod_and_after_a_time(scene: Scene) -> None:
    stage = scene.stage
    scene.holder("low", 8000)
    scene.waits("vip", 6000, 10)
    await scene.evicted()
    stage.now += LASTS
    scene.waits("vip", 6000, 10)
    stage.ledger.drop_pod("uid-low")
    stage.engine.nominations.forget(stage.now, stage.engine.waiting)
    assert list(stage.engine.nominations) == []


async def restarted(scene: Scene, vip: dict[str, Any], later: float = 1.0) -> Any:
    """A new process, `later` seconds after the old one's nomination, that has read all nodes and pods."""
    new = type(scene.stage)()
    new.engine.nominations.now = lambda: UNIX + later
    new.node("a", mem=10000)
    new.gate.follow("nodes and pods are being read")
    pod = {**vip, "metadata": {**vip["metadata"], "annotations": {NOMINATED: scene.api.notes["vip"]}}}
    new.engine.see(msgspec.convert(pod, Pod))
    new.gate.lead()
    return new


async def test_a_restarted_scheduler_keeps_the_room_for_whom_it_was_made(scene: Scene) -> None:
    scene.holder("low", 8000)
    vip = scene.waits("vip", 6000, 10)
    await scene.evicted()
    assert json.loads(scene.api.notes["vip"]) == {"node": "a", "victims": ["uid-low"], "since": UNIX}
    new = await restarted(scene, vip)
    answer = new.filter(new.pod("sneak", gpu=1, gpumem=6000), "a")
    assert answer["FailedNodes"] == {"a": "NodeNominatedToPod: room is being made there for default/vip"}
    new.engine.nominations.forget(new.now, new.engine.waiting)
    assert [one.ask.pod.name for one in new.engine.nominations] == ["vip"], "its pod has not been asked about yet"
    assert new.filter(vip, "a")["NodeNames"] == ["a"]
    assert list(new.engine.nominations) == []


async def test_a_nomination_that_was_recalled_ends_as_any_other(scene: Scene) -> None:
    """When its pod waits no more, and after its time, counted from its beginning."""
    scene.holder("low", 8000)
    vip = scene.waits("vip", 6000, 10)
    await scene.evicted()
    late = await restarted(scene, vip, later=LASTS)
    assert list(late.engine.nominations) == []
    new = await restarted(scene, vip, later=LASTS - 10)
    new.now += 9
    new.engine.nominations.forget(new.now, new.engine.waiting)
    assert len(list(new.engine.nominations)) == 1
    new.now += 1
    new.engine.nominations.forget(new.now, new.engine.waiting)
    assert list(new.engine.nominations) == []
    asked = await restarted(scene, vip)
    asked.engine.waiting.refused(asked.engine.ask(msgspec.convert(vip, Pod)), asked.now)
    asked.engine.nominations.forget(asked.now, asked.engine.waiting)
    asked.engine.waiting.settled("uid-vip")
    asked.engine.nominations.forget(asked.now, asked.engine.waiting)
    assert list(asked.engine.nominations) == [], "its pod was asked about, and waits no more"


async def test_a_note_is_believed_only_of_a_pod_that_waits_and_while_nothing_is_decided(scene: Scene) -> None:
    scene.holder("low", 8000)
    vip = scene.waits("vip", 6000, 10)
    await scene.evicted()
    note = scene.api.notes["vip"]

    def seen(text: str, *, deciding: bool = False, **spec: str) -> int:
        new = type(scene.stage)()
        new.engine.nominations.now = lambda: UNIX
        if not deciding:
            new.gate.follow("another replica decides")
        meta = {**vip["metadata"], "annotations": {NOMINATED: text}}
        new.engine.see(msgspec.convert({"metadata": meta, "spec": {**vip["spec"], **spec}}, Pod))
        return len(list(new.engine.nominations))

    assert seen(note) == 1
    assert seen(note, deciding=True) == 0
    assert seen(note, nodeName="a") == 0
    assert seen("what?") == 0
    assert seen(note.replace(str(UNIX), str(UNIX + 5))) == 0, "from a clock that is ahead"
