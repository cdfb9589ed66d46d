"""Preemption beside pods that are being deleted: their room comes by itself, so nobody else goes for it."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from hami.model.ids import PodUid
from hami.scheduler.evict import OVERDUE
from hami.wire.objects import Metadata, Pod, deleted_by

from .evictions import UNIX, Scene


@pytest.fixture
def scene(stage: Any) -> Scene:
    stage.node("a", mem=10000)
    stage.node("b", mem=10000)
    return Scene(stage)


def leaves(scene: Scene, name: str, node: str, in_s: float) -> None:
    """The watch tells that the pod is being deleted and should be gone in so many seconds."""
    stamp = datetime.fromtimestamp(UNIX + in_s, UTC).isoformat().replace("+00:00", "Z")
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "deletionTimestamp": stamp}
    scene.stage.engine.see(msgspec.convert({"metadata": meta, "spec": {"nodeName": node, "containers": []}}, Pod))


async def test_nobody_is_evicted_where_enough_is_leaving_anyway(scene: Scene) -> None:
    scene.holder("stays", 8000, 0, "a")
    scene.holder("goes", 8000, 50, "b")  # more important: nobody could evict it, and it goes all the same
    scene.waits("vip", 6000, 10, "a", "b")
    leaves(scene, "goes", "b", 30)
    assert await scene.evicted() == []


async def test_who_is_leaving_and_is_not_enough_is_no_victim_either(scene: Scene) -> None:
    scene.holder("goes", 3000, 0)
    scene.holder("low", 3000, 1)
    scene.holder("higher", 4000, 2)
    leaves(scene, "goes", "a", 30)
    scene.waits("vip", 6000, 10)
    assert await scene.evicted() == ["low"]


async def test_who_does_not_go_in_time_is_waited_for_no_more(scene: Scene) -> None:
    scene.holder("stuck", 8000, 0, "a")
    scene.holder("low", 8000, 1, "b")
    leaves(scene, "stuck", "a", -OVERDUE)
    scene.waits("vip", 6000, 10, "a", "b")
    assert await scene.evicted() == ["low"]


async def test_two_pods_for_which_room_is_made_at_once_have_victims_of_their_own(scene: Scene) -> None:
    scene.holder("one", 8000, 0, "a")
    scene.holder("two", 8000, 0, "b")
    for name in ("vip", "second"):
        scene.waits(name, 6000, 10, "a", "b")
    assert sorted(await scene.evicted()) == ["one", "two"]


async def test_a_victim_that_makes_room_for_two_goes_for_both(scene: Scene) -> None:
    scene.holder("one", 8000, 0, "a")
    scene.holder("two", 8000, 1, "b")
    for name in ("vip", "second"):
        scene.waits(name, 4000, 10, "a", "b")
    assert await scene.evicted() == ["one"]


async def test_a_pod_goes_where_room_was_made_for_it_and_leaves_others_theirs(scene: Scene) -> None:
    """Binpack would send it to b, which is fuller, and where room is made for a less important pod."""
    scene.holder("a-low", 9000, 0, "a")
    scene.holder("b-low", 8000, 1, "b")
    scene.holder("b-stays", 1000, 50, "b")
    first, second = (
        scene.waits(name, mem, priority, "a", "b") for name, mem, priority in (("vip", 3000, 30), ("next", 9000, 10))
    )
    assert sorted(await scene.evicted()) == ["a-low", "b-low"]
    for gone in ("a-low", "b-low"):
        scene.stage.ledger.drop_pod(f"uid-{gone}")
    answer = scene.stage.filter(first, "a", "b")
    assert answer["NodeNames"] == ["a"]
    assert answer["FailedNodes"] == {"b": "NodeNominatedToPod: room was made for it on a"}
    assert scene.stage.filter(second, "a", "b")["NodeNames"] == ["b"]


async def test_who_has_gone_is_forgotten(scene: Scene) -> None:
    scene.holder("goes", 8000)
    leaves(scene, "goes", "a", 30)
    await scene.evictor.round()
    assert list(scene.stage.engine.leaving) == ["uid-goes"]
    scene.stage.ledger.drop_pod("uid-goes")
    await scene.evictor.round()
    assert scene.stage.engine.leaving == {}


def test_the_time_of_a_deletion_is_read_as_the_api_server_writes_it() -> None:
    assert deleted_by(Metadata()) is None
    assert deleted_by(Metadata(deletion_timestamp="2023-11-14T22:13:20Z")) == UNIX
    assert deleted_by(Metadata(deletion_timestamp="soon")) == 0.0


async def test_a_follower_forgets_who_has_gone_as_whoever_decides_does(scene: Scene) -> None:
    scene.stage.gate.follow("another replica decides")
    scene.holder("goes", 3000, 0)
    leaves(scene, "goes", "a", 30)
    leaves(scene, "of-no-card", "a", 30)
    assert await scene.evicted() == []
    assert list(scene.stage.engine.leaving) == ["uid-goes"]
    scene.stage.ledger.drop_pod(PodUid("uid-goes"))
    assert await scene.evicted() == []
    assert scene.stage.engine.leaving == {}
