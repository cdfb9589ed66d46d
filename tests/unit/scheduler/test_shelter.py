"""/shelter: where pods without cards go that kube-scheduler places for our profile, as `pack` sees it."""

import json
from typing import Any

import pytest

from hami.model.errors import Malformed
from hami.model.ids import NodeName
from hami.scheduler.verbs import shelter

PACK = {"hami.io/node-scheduler-policy": "pack"}


def points(stage: Any, pod: Any, *names: str) -> dict[str, int]:
    answer = json.loads(shelter.answer(stage.engine, stage.ask(pod, names)))
    return {one["Host"]: one["Score"] for one in answer}


def cpu_pod(stage: Any, cpu: int, **annotations: str) -> Any:
    pod = stage.pod("cpu", annotations=PACK | annotations)
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": str(cpu)}}
    return pod


@pytest.fixture
def hungry(stage: Any) -> Any:
    """Pods want whole cards and 16 CPUs each; `full` has no card left, `rich` and `poor` one each."""
    for name, cpu in (("full", 8000.0), ("rich", 64_000.0), ("poor", 16_000.0)):
        stage.node(name)
        stage.ledger.set_host(NodeName(name), cpu)
    for number in range(3):
        pod = stage.pod(f"p{number}", annotations=PACK, gpu=1, gpumem=16000)
        pod["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "16"}
        stage.filter(pod, *(["full"] if number == 0 else []))
        if number:
            stage.ledger.release(f"uid-p{number}")
    return stage


def test_a_pod_without_cards_is_led_to_where_its_cpu_serves_no_free_card(hungry: Any) -> None:
    assert points(hungry, cpu_pod(hungry, 4), "full", "rich", "poor") == {"full": 10, "rich": 10}
    assert points(hungry, cpu_pod(hungry, 4), "poor", "rich") == {"rich": 10}
    assert points(hungry, cpu_pod(hungry, 60), "poor", "rich", "full") == {"full": 10}
    assert points(hungry, cpu_pod(hungry, 4), "poor", "no-cards") == {"no-cards": 10}


def test_where_all_are_alike_kube_scheduler_chooses(hungry: Any) -> None:
    assert points(hungry, cpu_pod(hungry, 4), "full", "rich") == {}
    assert points(hungry, cpu_pod(hungry, 4), "poor") == {}
    assert points(hungry, cpu_pod(hungry, 4)) == {}


def test_before_anybody_has_asked_for_cards_nothing_is_preferred(stage: Any) -> None:
    stage.node("a")
    stage.node("b")
    assert points(stage, cpu_pod(stage, 4), "a", "b") == {}


def test_under_another_policy_and_for_pods_with_cards_it_has_no_say(hungry: Any) -> None:
    spread = {"hami.io/node-scheduler-policy": "spread"}
    assert points(hungry, cpu_pod(hungry, 4, **spread), "rich", "poor") == {}
    assert points(hungry, hungry.pod("gpu", annotations=PACK, gpu=1), "rich", "poor") == {}


def test_a_follower_prefers_nothing(hungry: Any) -> None:
    hungry.gate.follow("another replica decides")
    assert points(hungry, cpu_pod(hungry, 4), "rich", "poor") == {}


def test_nothing_is_held_or_learned_by_asking(hungry: Any) -> None:
    before = list(hungry.ledger.reservations())
    for _ in range(50):
        points(hungry, cpu_pod(hungry, 4), "rich", "poor")
    assert list(hungry.ledger.reservations()) == before
    assert points(hungry, cpu_pod(hungry, 4), "poor", "rich") == {"rich": 10}


def test_a_body_that_is_no_call_is_malformed(stage: Any) -> None:
    for body in (b"[", b'{"NodeNames":["a"]}'):
        with pytest.raises(Malformed):
            shelter.answer(stage.engine, body)
