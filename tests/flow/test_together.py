"""Gangs and preemption on a real control plane: all or none; the few who must go, go."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hami.kube import paths
from hami.scheduler.evict import EVERY
from hami.wire.annotations import NOMINATED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

GROUP, LEAST = "scheduling.x-k8s.io/pod-group", "scheduling.x-k8s.io/min-member"


@pytest.fixture(scope="module", autouse=True)
def _nodes(_module_cluster: Any) -> None:
    _module_cluster.nodes("a", "b", cards=1, mem_mib=16000, model="NVIDIA-T4")
    for name, value in (("high", 1000), ("low", 10)):
        body = {
            "metadata": {"name": name},
            "value": value,
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
        }
        kube = _module_cluster.kube
        _module_cluster._do(kube.create(paths.resource("scheduling.k8s.io/v1", "priorityclasses"), body))


def member(cluster: Any, name: str, gang: str = "g", least: int = 4, **asks: int) -> dict[str, Any]:
    pod: dict[str, Any] = cluster.pod(name, annotations={LEAST: str(least)}, **({"gpu": 1, "gpumem": 8000} | asks))
    pod["metadata"]["labels"] = {GROUP: gang}
    return pod


def labelled(cluster: Any, name: str, priority: str, gpumem: int, **labels: str) -> dict[str, Any]:
    pod: dict[str, Any] = cluster.pod(name, gpu=1, gpumem=gpumem, spec={"priorityClassName": priority})
    pod["metadata"]["labels"] = labels
    return pod


def test_a_gang_of_which_three_fit_does_not_start_and_starts_whole_when_it_fits(cluster: Any) -> None:  # 6.17
    cluster.submit("in-the-way", gpu=1, gpumem=8000)
    cluster.bound("in-the-way")
    names = [f"m{number}" for number in range(4)]
    cluster.create(*(member(cluster, name) for name in names))
    cluster.until("the refusal", lambda: "GangIncomplete: gang g: 3 of 4 fit" in cluster.reason("m3"))
    assert [name for name in names if cluster.node_of(name)] == []
    cluster.delete("in-the-way")
    cluster.bound(*names, timeout=60)
    assert sorted(cluster.taken().values()) == [16000, 16000]


def test_two_gangs_that_want_the_same_cards_run_one_after_the_other(cluster: Any) -> None:  # 6.17
    first, second = ([f"{gang}{number}" for number in range(3)] for gang in ("x", "y"))
    pods = [member(cluster, name, gang=name[0], least=3) for pair in zip(first, second, strict=True) for name in pair]
    cluster.create(*pods)

    def started() -> list[str]:
        return [name for name in (*first, *second) if cluster.node_of(name)]

    winners = cluster.until("one gang has started", lambda: found if len(found := started()) >= 3 else None, 60)
    assert len({name[0] for name in winners}) == 1, "all of one, none of the other"
    cluster.delete(*winners)
    cluster.bound(*({*first, *second} - set(winners)), timeout=60)


def test_a_gang_one_of_which_no_node_takes_gives_back_what_it_holds(cluster: Any) -> None:  # 6.17
    """Two of three wait in /bind for the third, at most the gang's timeout of 20 s; then others get the cards."""
    names = [f"t{number}" for number in range(3)]
    pods = [member(cluster, name, gang="t", least=3) for name in names]
    pods[2]["spec"]["nodeSelector"] = {"nobody": "has-this"}
    cluster.create(*pods)
    cluster.until("two hold their slices", lambda: "selector" in cluster.reason("t2"))
    for name in ("whole-1", "whole-2"):
        cluster.submit(name, gpu=1, gpumem=16000)
    cluster.bound("whole-1", "whole-2", timeout=90)
    assert [name for name in names if cluster.node_of(name)] == []
    assert sorted(cluster.taken().values()) == [16000, 16000]


def test_a_gang_whose_scheduler_is_killed_between_its_binds_ends_whole(cluster: Any, product: Any) -> None:  # 6.17
    """As soon as one of four is bound the scheduler dies by SIGKILL, thrice: often the others are not bound yet."""
    replica = product.replicas[0]
    for turn in range(3):
        names = [f"k{turn}-{number}" for number in range(4)]
        cluster.create(*(member(cluster, name, gang=f"k{turn}") for name in names))
        cluster.until("one is bound", lambda names=names: any(map(cluster.node_of, names)), 60)
        replica.process.kill()
        replica.process.start()
        cluster.until("ready again", lambda: _ready(replica), timeout=60)
        cluster.bound(*names, timeout=60)
        assert sorted(cluster.taken().values()) == [16000, 16000]
        cluster.clear()


def _ready(replica: Any) -> bool:
    try:
        return bool(replica.ready)
    except OSError:
        return False


@pytest.fixture
def budget(cluster: Any) -> Iterator[None]:
    """Pods with the label ``keep: yes`` must all stay."""
    where = paths.resource("policy/v1", "poddisruptionbudgets", "default")
    spec = {"minAvailable": "100%", "selector": {"matchLabels": {"keep": "yes"}}}
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "keep"}, "spec": spec}
    cluster._do(cluster.kube.create(where, body))
    yield
    cluster._do(cluster.kube.delete(f"{where}/keep"))


@pytest.mark.usefixtures("budget")
def test_an_important_pod_gets_its_card_at_the_cost_of_the_fewest_and_keeps_budgets(cluster: Any) -> None:  # 6.18
    pods = [
        labelled(cluster, "kept", "low", 16000, keep="yes"),
        labelled(cluster, "small", "low", 4000),
        labelled(cluster, "large", "low", 12000),
    ]
    for pod in pods:
        cluster.create(pod)
        cluster.bound(pod["metadata"]["name"])
    cluster.running("kept", "small", "large")
    cluster.create(labelled(cluster, "vip", "high", 10000))
    cluster.bound("vip", timeout=60)
    left = {pod["metadata"]["name"] for pod in cluster.pods() if not pod["metadata"].get("deletionTimestamp")}
    assert left == {"kept", "small", "vip"}
    cluster.until("its event", lambda: any(kind == "Preempting" for kind, _ in cluster.events("vip")))


@pytest.mark.usefixtures("budget")
def test_a_budget_is_counted_over_all_who_would_go(cluster: Any) -> None:  # 6.18
    """One of the two web pods may go, and both would have to; when both may, room is made and noted on the pod."""
    where = paths.resource("policy/v1", "poddisruptionbudgets", "default")
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": spec}
    cluster._do(cluster.kube.create(where, body))
    names = ("kept", "web-1", "web-2")
    for pod in (
        labelled(cluster, "kept", "low", 16000, keep="yes"),
        labelled(cluster, "web-1", "low", 8000, app="web"),
        labelled(cluster, "web-2", "low", 8000, app="web"),
    ):
        cluster.create(pod)
        cluster.bound(pod["metadata"]["name"])
    cluster.running(*names)
    cluster.until("the budget lets one go", lambda: _allowed(cluster, f"{where}/web") == 1)
    cluster.create(labelled(cluster, "vip", "high", 16000))
    cluster.reason("vip")
    time.sleep(3 * EVERY)  # some rounds of the evictor, in real time
    assert {pod["metadata"]["name"] for pod in cluster.pods()} == {*names, "vip"}
    cluster._do(cluster.kube.delete(f"{where}/web"))
    cluster.bound("vip", timeout=60)
    left = [pod for pod in cluster.pods() if not pod["metadata"].get("deletionTimestamp")]
    assert {pod["metadata"]["name"] for pod in left} == {"kept", "vip"}
    (vip,) = (pod for pod in left if pod["metadata"]["name"] == "vip")
    assert vip["spec"]["nodeName"] in vip["metadata"]["annotations"][NOMINATED]


def _allowed(cluster: Any, path: str) -> int:
    body: dict[str, Any] = json.loads(cluster._do(cluster.kube.get(path)))
    return int(body.get("status", {}).get("disruptionsAllowed", 0))


def test_nobody_goes_for_a_pod_of_no_higher_priority(cluster: Any) -> None:  # 6.18
    for name in ("one", "two"):
        cluster.create(labelled(cluster, name, "low", 16000))
    cluster.bound("one", "two")
    cluster.create(labelled(cluster, "equal", "low", 16000))
    assert "CardInsufficientMemory" in cluster.reason("equal")
    assert {pod["metadata"]["name"] for pod in cluster.pods()} == {"one", "two", "equal"}
