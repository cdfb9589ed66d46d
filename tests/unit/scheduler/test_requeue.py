"""Waiting pods are touched when a slice they could use comes free, and only then."""

import asyncio
from typing import Any

import pytest

from hami.kube.errors import Forbidden
from hami.scheduler.requeue import AT_ONCE, RETRIED, Waker


@pytest.fixture
def waker(stage: Any) -> Waker:
    return Waker(stage.engine, stage.api, lambda: 1700000000.0)


def refused(stage: Any, name: str, mem: int, priority: int = 0) -> None:
    pod = stage.pod(name, gpu=1, gpumem=mem)
    pod["spec"]["priority"] = priority
    assert stage.filter(pod, "a")["NodeNames"] == []


def touched(stage: Any) -> list[str]:
    return [path.rpartition("/")[2] for path, _ in stage.api.patches]


async def test_a_pod_that_fits_now_and_was_not_asked_about_since_is_touched_once(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    refused(stage, "small", 4000)
    refused(stage, "large", 90000)
    stage.node("a", mem=8000)
    stage.now += 1
    waker.freed("a")
    await waker.round()
    await waker.round()
    assert touched(stage) == ["small"]
    assert stage.api.patches[0][1] == {"metadata": {"uid": "uid-small", "annotations": {RETRIED: "1700000000000"}}}
    assert stage.figure("hami_scheduler_wakes_total") == 1


async def test_a_pod_that_kube_scheduler_has_tried_since_is_left_alone(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    refused(stage, "p", 4000)
    stage.now += 1
    waker.freed("a")
    stage.now += 1
    refused(stage, "p", 4000)
    stage.node("a", mem=8000)
    await waker.round()
    assert touched(stage) == []


async def test_each_new_freeing_may_touch_again(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    refused(stage, "p", 4000)
    stage.node("a", mem=8000)
    for _ in range(2):
        stage.now += 1
        waker.freed("a")
        await waker.round()
    assert touched(stage) == ["p", "p"]


async def test_important_pods_first_then_those_that_wait_longest_and_not_all_at_once(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    for number in range(AT_ONCE + 3):
        stage.now += 1
        refused(stage, f"p{number}", 4000)
    refused(stage, "vip", 4000, priority=100)
    stage.node("a", mem=8000)
    stage.now += 1
    waker.freed("a")
    assert await waker.round() == AT_ONCE
    assert touched(stage) == ["vip", *(f"p{number}" for number in range(AT_ONCE - 1))]
    await waker.round()
    assert len(touched(stage)) == AT_ONCE + 4


async def test_nobody_waits_nothing_is_done(stage: Any, waker: Waker) -> None:
    stage.node("a")
    waker.freed("a")
    assert await waker.round() == 0


async def test_a_pod_that_is_gone_is_forgotten_and_a_refused_touch_is_no_fault(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    refused(stage, "gone", 4000)
    refused(stage, "denied", 4000)
    stage.api.pods.pop("/api/v1/namespaces/default/pods/gone")
    stage.api.patch = denying(stage.api.patch)
    stage.node("a", mem=8000)
    stage.now += 1
    waker.freed("a")
    await waker.round()
    assert [waiter.ask.pod.name for waiter in stage.engine.waiting.in_order()] == ["denied"]
    assert stage.figure("hami_scheduler_wakes_total") == 0


def denying(patch: Any) -> Any:
    async def denied(path: str, body: object) -> bytes:
        if path.endswith("denied"):
            raise Forbidden(403, "Forbidden", "no")
        answer: bytes = await patch(path, body)
        return answer

    return denied


@pytest.mark.looptime
async def test_the_loop_gives_kube_scheduler_a_moment_and_then_touches(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    refused(stage, "p", 4000)
    stage.node("a", mem=8000)
    stage.now += 1
    running = asyncio.create_task(waker.run())
    waker.freed("a")
    await asyncio.sleep(0.2)
    assert touched(stage) == []
    await asyncio.sleep(1.0)
    assert touched(stage) == ["p"]
    await asyncio.sleep(60)
    assert touched(stage) == ["p"], "and rests"
    running.cancel()


async def test_a_follower_wakes_nobody(stage: Any, waker: Waker) -> None:
    stage.node("a", mem=1000)
    refused(stage, "p", 4000)
    stage.node("a", mem=8000)
    stage.now += 1
    waker.freed("a")
    stage.gate.follow("another replica decides")
    assert await waker.round() == 0
    assert touched(stage) == []
