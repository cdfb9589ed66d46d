"""What happens to slices when programs stop: agents, the scheduler, binds that never come, the whole product."""

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from hami.kube import paths
from hami.kube.errors import ApiError

if TYPE_CHECKING:
    from hami.lab.product import Product

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _nodes(_module_cluster: Any) -> None:
    _module_cluster.nodes("n1", cards=2, mem_mib=16000)


def figures(product: "Product") -> list[str]:
    """What is taken of every card and by every pod, as the metrics page has it."""
    page = product.replicas[0].get("/metrics")[1]
    return sorted(re.findall(r"^hami_(?:gpu|vgpu|node)_.*$", page, re.MULTILINE))


def test_a_node_whose_agent_falls_silent_takes_no_new_pods_and_says_why(
    cluster: Any, product: "Product"
) -> None:  # 2.5
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    cluster.submit("old", gpu=1, gpumem=1000)
    cluster.running("old")
    cluster.annotate_node("n1", node_handshake=f"Reported_{stamp}")
    try:
        cluster.until(
            "the node is out",
            lambda: f"has not reported since {stamp} UTC" in product.replicas[0].get("/metrics")[1],
            timeout=60,
        )
        cluster.submit("new", gpu=1, gpumem=1000)
        assert "the node's agent has not reported since" in cluster.reason("new")
        assert cluster.get("old")["status"]["phase"] == "Running"
        told = cluster.until(
            "the node's event", lambda: [text for kind, text in cluster.events("n1") if kind == "CardsExcluded"]
        )
        assert "the node's agent has not reported since" in told[0]
        later = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        cluster.annotate_node("n1", node_handshake=f"Reported_{later}")
        cluster.bound("new", timeout=60)
    finally:
        cluster.annotate_node("n1", node_handshake=None)


def test_a_plugin_that_kubelet_has_lost_takes_the_node_out(cluster: Any) -> None:  # 2.5
    def offer(count: int) -> None:
        amounts = {
            "status": {"allocatable": {"nvidia.com/gpu": str(count)}, "capacity": {"nvidia.com/gpu": str(count)}}
        }
        cluster._do(cluster.kube.patch(paths.nodes("n1", "status"), amounts))

    offer(0)
    try:
        cluster.submit("new", gpu=1, gpumem=1000)
        assert "kubelet offers no nvidia.com/gpu" in cluster.reason("new")
    finally:
        offer(20)
    cluster.bound("new", timeout=60)


def test_a_restarted_scheduler_counts_the_same_from_the_api_alone(cluster: Any, product: "Product") -> None:  # 2.8
    for number, mem in enumerate((1000, 2000, 3000)):
        cluster.submit(f"p{number}", gpu=1, gpumem=mem, gpucores=10)
    cluster.running("p0", "p1", "p2")
    before = cluster.until(
        "all counted", lambda: len(rows := figures(product)) and sum("p2" in row for row in rows) and rows
    )
    replica = product.replicas[0]
    replica.process.kill()
    replica.process.start()
    cluster.until("ready again", lambda: _ready(replica), timeout=60)
    assert figures(product) == before


def test_while_the_scheduler_is_down_pods_run_and_no_gpu_pod_slips_through(
    cluster: Any, product: "Product"
) -> None:  # 2.6
    cluster.submit("runs", gpu=1, gpumem=1000)
    cluster.running("runs")
    replica = product.replicas[0]
    replica.process.kill()
    try:
        with pytest.raises(ApiError, match="hami"):
            cluster.submit("refused", gpu=1, gpumem=1000)
        cluster.submit("cpu-only")
        assert cluster.get("runs")["status"]["phase"] == "Running"
    finally:
        replica.process.start()
        cluster.until("ready again", lambda: _ready(replica), timeout=60)
    cluster.submit("after", gpu=1, gpumem=1000)
    cluster.bound("after")


@pytest.mark.realtime
def test_a_hold_whose_bind_never_comes_is_given_back(cluster: Any, product: "Product") -> None:  # 4.11
    ghost = {"metadata": {"name": "ghost", "namespace": "default", "uid": "ghost"}}
    ghost["spec"] = {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}  # type: ignore[dict-item]
    body = json.dumps({"Pod": ghost, "NodeNames": ["n1"], "Nodes": None}).encode()
    assert product.post(product.replicas[0], "/filter", body)[1]["NodeNames"] == ["n1"]
    cluster.submit("waits", gpu=1, gpumem=16000)
    began = time.monotonic()
    assert "CardInsufficientMemory" in cluster.reason("waits")
    cluster.bound("waits", timeout=10)
    assert time.monotonic() - began < 3 + 3, "the hold of 3 s, and a moment to notice"


def test_a_bound_pod_that_is_never_allocated_gives_its_slice_back_when_it_goes(cluster: Any) -> None:  # 4.11
    cluster.nodes("mute", agents=False, cards=1, mem_mib=90000)
    try:
        cluster.submit("stuck", gpu=1, gpumem=80000)
        assert cluster.bound("stuck") == ["mute"]
        cluster.submit("next", gpu=1, gpumem=80000)
        assert "CardInsufficientMemory" in cluster.reason("next")
        cluster.delete("stuck")
        assert cluster.bound("next", timeout=15) == ["mute"]
    finally:
        cluster.clear()
        cluster.remove_nodes("mute")


def test_a_broken_record_keeps_the_node_from_new_pods_until_it_is_gone(cluster: Any) -> None:
    cluster.submit("damaged", gpu=1, gpumem=1000)
    cluster.running("damaged")
    cluster.damage("damaged")
    cluster.submit("new", gpu=1, gpumem=1000)
    assert "pod default/damaged: its record cannot be read" in cluster.reason("new")
    cluster.delete("damaged")
    cluster.bound("new", timeout=15)


def test_the_api_server_may_go_away_and_come_back(cluster: Any, product: "Product") -> None:
    cluster.submit("before", gpu=1, gpumem=1000)
    cluster.running("before")
    cluster.lab.control_plane.apiserver.kill()
    time.sleep(2)
    assert product.replicas[0].get("/healthz")[0] == 200
    cluster.lab.control_plane.apiserver.start()
    cluster.reconnect()
    cluster.submit("after", gpu=1, gpumem=1000)
    cluster.bound("after", timeout=60)
    assert max(cluster.taken().values()) <= 16000


def test_without_the_product_everything_is_as_it_was(new_lab: Any, cluster_of: Any) -> None:  # 1.1, 1.2, 1.7
    from hami.lab.product import Product

    lab = new_lab()
    cluster = cluster_of(lab)
    # before: kubelet of a one-card node offers one
    cluster.nodes("n1", cards=1, slots=1, mem_mib=16000)
    cluster.submit("first", gpu=1)
    cluster.running("first")
    cluster.submit("second", gpu=1)
    assert "Insufficient nvidia.com/gpu" in cluster.reason("second")
    cluster.clear()
    cluster.remove_nodes("n1")

    # with it: ten slots on the same card
    product = Product(lab)
    product.start()
    product.install()
    cluster.nodes("n2", cards=1, slots=10, mem_mib=16000)
    for name in ("first", "second"):
        cluster.submit(name, gpu=1, gpumem=4000)
    cluster.running("first", "second")
    assert cluster.record("first") == cluster.record("second") == "GPU-n2-0,NVIDIA,4000,0:;"
    cluster.submit("cpu")
    assert cluster.get("cpu")["spec"]["schedulerName"] == "default-scheduler"

    # and after it was removed
    product.uninstall()
    cluster.submit("stock", gpu=1)
    assert cluster.get("stock")["spec"]["schedulerName"] == "default-scheduler"
    cluster.running("stock")
    assert [cluster.get(name)["status"]["phase"] for name in ("first", "second")] == ["Running"] * 2


def _ready(replica: Any) -> bool:
    try:
        return bool(replica.ready)
    except OSError:
        return False
