"""Slices on a real control plane: who gets what, who waits and why, what frees a slice."""

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hami.lab.product import Product

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _nodes(_module_cluster: Any) -> None:
    _module_cluster.nodes("one-card", cards=1, mem_mib=16000, model="NVIDIA-NVIDIA T4", pods=300)


def test_two_pods_share_one_card_and_a_third_waits_with_the_reason(cluster: Any) -> None:  # 1.2, 4.6
    for name in ("a", "b"):
        cluster.submit(name, gpu=1, gpumem=6000)
    assert cluster.bound("a", "b") == ["one-card"] * 2
    cluster.running("a", "b")
    assert cluster.record("a") == cluster.record("b") == "GPU-one-card-0,NVIDIA,6000,0:;"
    cluster.submit("c", gpu=1, gpumem=6000)
    reason = cluster.reason("c")
    assert "1/1 CardInsufficientMemory: missing 2000 MiB on the best card" in reason
    told = cluster.until("the event", lambda: [text for kind, text in cluster.events("c") if kind == "FilteringFailed"])
    assert "no available node, 1 nodes do not meet" in told
    assert any("1 nodes CardInsufficientMemory(one-card)" in text for text in told)


def test_every_step_of_a_slice_is_visible(cluster: Any) -> None:  # 2.2, 2.4
    cluster.submit("traced", gpumem=3000)
    cluster.running("traced")
    pod = cluster.get("traced")
    annotations = pod["metadata"]["annotations"]
    assert pod["spec"]["schedulerName"] == "hami-scheduler"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1", "the webhook completed it"
    cluster.until(
        "both events", lambda: {kind for kind, _ in cluster.events("traced")} >= {"FilteringSucceed", "BindingSucceed"}
    )
    assert annotations["hami.io/vgpu-node"] == pod["spec"]["nodeName"] == "one-card"
    assert annotations["hami.io/vgpu-devices-allocated"] == "GPU-one-card-0,NVIDIA,3000,0:;"
    assert annotations["hami.io/vgpu-devices-to-allocate"] == ";"
    assert annotations["hami.io/bind-phase"] == "success"
    assert abs(int(annotations["hami.io/bind-time"]) - time.time()) < 60
    assert abs(int(annotations["hami.io/vgpu-time"]) - time.time()) < 60


@pytest.mark.realtime
def test_a_freed_slice_goes_to_the_pod_that_waits_within_two_seconds(cluster: Any) -> None:  # 4.7
    cluster.submit("holder", gpu=1, gpumem=12000)
    cluster.running("holder")
    cluster.submit("waiter", gpu=1, gpumem=12000)
    assert "CardInsufficientMemory" in cluster.reason("waiter")
    # Three tries are enough to put kube-scheduler's back-off above two seconds.
    time.sleep(3)
    began = time.monotonic()
    cluster.delete("holder")
    cluster.bound("waiter", timeout=10)
    assert time.monotonic() - began < 2.0


def test_a_hundred_pods_at_once_on_one_node_fill_it_and_no_more(cluster: Any) -> None:  # 4.8 with simulated agents
    cluster.nodes("eight-cards", cards=8, mem_mib=16000, slots=20, model="NVIDIA-NVIDIA A10", pods=300)
    try:
        pods = [
            cluster.pod(
                f"burst-{number}", gpu=1, gpumem=1200, gpucores=5, annotations={"nvidia.com/use-gputype": "A10"}
            )
            for number in range(104)
        ]
        cluster.create(*pods[:100])
        cluster.running(*(f"burst-{number}" for number in range(100)), timeout=60)
        assert len(cluster.taken()) == 8
        assert max(cluster.taken().values()) <= 16000
        assert sum(cluster.taken().values()) == 100 * 1200
        cluster.create(*pods[100:])
        cluster.bound(*(f"burst-{number}" for number in range(100, 104)))
        cluster.submit("one-too-many", gpu=1, gpumem=1200, annotations={"nvidia.com/use-gputype": "A10"})
        assert "CardInsufficientMemory" in cluster.reason("one-too-many")
        assert max(cluster.taken().values()) <= 16000
    finally:
        cluster.clear()
        cluster.remove_nodes("eight-cards")


ASKS = [
    ("the whole card by default (5.1)", {"gpu": 1}, "GPU-one-card-0,NVIDIA,16000,100:;"),
    ("memory in MiB (5.2)", {"gpu": 1, "gpumem": 3000}, "GPU-one-card-0,NVIDIA,3000,0:;"),
    ("memory in percent (5.3)", {"gpu": 1, "gpumem-percentage": 30}, "GPU-one-card-0,NVIDIA,4800,0:;"),
    ("cores alone imply a card (5.5)", {"gpucores": 30}, "GPU-one-card-0,NVIDIA,16000,30:;"),
    ("quantities with suffixes (5.10)", {"gpu": 1, "gpumem": "5k"}, "GPU-one-card-0,NVIDIA,5000,0:;"),
]


@pytest.mark.parametrize(("asks", "record"), [case[1:] for case in ASKS], ids=[case[0] for case in ASKS])
def test_what_is_asked_is_what_is_recorded(cluster: Any, asks: dict[str, Any], record: str) -> None:
    cluster.submit("asks", **asks)
    cluster.bound("asks")
    assert cluster.record("asks") == record


WAITS = [
    ("two cards of one (5.7)", [{"gpu": 2}], "NodeInsufficientDevice"),
    ("two cards of one, in words", [{"gpu": 2}], "asks 2 cards, the node has 1"),
    ("a card alone, twice (5.8)", [{"gpu": 1, "gpumem": 100, "gpucores": 100}] * 2, "CardInsufficientCore"),
    (
        "a card alone that others use (5.8)",
        [{"gpu": 1, "gpumem": 100}, {"gpu": 1, "gpumem": 100, "gpucores": 100}],
        "ExclusiveDeviceAllocateConflict",
    ),
    (
        "no cores of a card that is taken alone (5.8)",
        [{"gpu": 1, "gpumem": 100, "gpucores": 100}, {"gpu": 1, "gpumem": 100}],
        "CardComputeUnitsExhausted",
    ),
    ("cores exhausted", [{"gpu": 1, "gpumem": 100, "gpucores": 60}] * 2, "CardInsufficientCore"),
    ("more slices than slots (5.9)", [{"gpu": 1, "gpumem": 100}] * 11, "CardTimeSlicingExhausted"),
]


@pytest.mark.parametrize(("asks", "words"), [case[1:] for case in WAITS], ids=[case[0] for case in WAITS])
def test_what_cannot_be_had_waits_with_its_reason(cluster: Any, asks: list[dict[str, Any]], words: str) -> None:
    for number, ask in enumerate(asks[:-1]):
        cluster.submit(f"has-{number}", **ask)
    cluster.bound(*(f"has-{number}" for number in range(len(asks) - 1)))
    cluster.submit("waits", **asks[-1])
    assert re.search(words, cluster.reason("waits"))


def test_two_cards_are_two_different_cards(cluster: Any) -> None:  # 5.6
    cluster.nodes("two-cards", cards=2, mem_mib=8000)
    try:
        cluster.submit("pair", gpu=2, gpumem=4000)
        assert cluster.bound("pair") == ["two-cards"]
        assert cluster.record("pair") == "GPU-two-cards-0,NVIDIA,4000,0:GPU-two-cards-1,NVIDIA,4000,0:;"
    finally:
        cluster.clear()
        cluster.remove_nodes("two-cards")


def test_a_cordoned_card_is_avoided_and_comes_back(cluster: Any) -> None:  # 4.4
    cluster.annotate_node("one-card", device_cordon="GPU-one-card-0")
    try:
        cluster.submit("avoids", gpu=1, gpumem=1000)
        assert "CardCordoned" in cluster.reason("avoids")
    finally:
        cluster.annotate_node("one-card", device_cordon=None)
    cluster.bound("avoids", timeout=60)


def test_a_controller_s_pods_get_the_same(cluster: Any) -> None:  # 5.14
    template = cluster.pod("x", gpu=1, gpumem=2000)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work", "namespace": "default"},
        "spec": {
            "parallelism": 2,
            "completions": 2,
            "template": {"spec": {**template["spec"], "restartPolicy": "Never"}},
        },
    }
    cluster.lab.apply(job)
    try:
        cluster.until("both pods run", lambda: [one["status"]["phase"] for one in cluster.pods()] == ["Running"] * 2)
        assert set(cluster.taken().values()) == {4000}
    finally:
        cluster.lab.kubectl("delete", "job", "work", "--cascade=foreground", "--wait=false")
        cluster.clear()


def test_usage_is_in_the_metrics_with_its_true_unit(cluster: Any, product: "Product") -> None:  # 7.11, 4.16
    cluster.submit("metered", gpu=1, gpumem=4000, gpucores=30)
    cluster.bound("metered")
    labels = 'node="one-card",device_uuid="GPU-one-card-0"'

    def shown() -> bool:
        page = product.replicas[0].get("/metrics")[1]
        taken = re.search(rf"hami_gpu_memory_allocated_bytes{{[^}}]*{labels}[^}}]*}} (\d+)", page)
        return bool(taken) and int(taken[1]) == 4000 << 20 and "hami_vgpu_core_allocated_ratio{" in page

    cluster.until("the figures", shown)
    page = product.replicas[0].get("/metrics")[1]
    for name in ("request_duration_seconds_bucket", "pending_pods", "node_rejections_total", "reservations"):
        assert f"hami_scheduler_{name}" in page
    assert "hami_build_info{" in page


def test_kube_scheduler_is_refused_a_node_that_does_not_fit(cluster: Any, product: "Product") -> None:
    """A bind for a node that cannot take the pod, as a confused caller might send it."""
    cluster.nodes("tiny", agents=False, cards=1, mem_mib=100)
    try:
        pod = cluster.pod("strays", gpu=1, gpumem=4000, spec={"nodeSelector": {"no": "such"}})
        cluster.create(pod)
        uid = cluster.get("strays")["metadata"]["uid"]
        bind = {"PodName": "strays", "PodNamespace": "default", "PodUID": uid, "Node": "tiny"}
        status, answer = product.post(product.replicas[0], "/bind", json.dumps(bind).encode())
        assert status == 200
        assert "node tiny cannot take the pod" in answer["Error"]
        assert cluster.node_of("strays") == ""
    finally:
        cluster.remove_nodes("tiny")
