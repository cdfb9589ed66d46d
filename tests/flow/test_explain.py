"""Why a pod waits and what would fit, asked as people ask: with their own rights, through the API server's proxy."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hami.lab.front import Front, own_address

from .conftest import Cluster

if TYPE_CHECKING:
    from hami.lab import Lab
    from hami.lab.product import Product

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _service(product: "Product") -> Iterator[None]:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback, which a Service cannot point to")
    with Front(product, address):
        yield


def person(lab: "Lab", tmp_path: Path, name: str, *rules: tuple[str, str]) -> str:
    """The kubeconfig of somebody with a token who may do `rules`, ``("get", "pods")``, in the whole cluster."""
    lab.kubectl("create", "serviceaccount", name)
    if rules:
        words = [f"--verb={verb}" for verb, _ in rules] + [f"--resource={resource}" for _, resource in rules]
        lab.kubectl("create", "clusterrole", f"test-{name}", *words)
        lab.kubectl(
            "create",
            "clusterrolebinding",
            f"test-{name}",
            f"--clusterrole=test-{name}",
            f"--serviceaccount=default:{name}",
        )
    token = lab.kubectl("create", "token", name).strip()
    config = yaml.safe_load(Path(lab.kubeconfig).read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    file = tmp_path / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def hami(*words: str, kubeconfig: str) -> tuple[int, str, str]:
    """Exit status, output and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "hami", *words, "--kubeconfig", kubeconfig],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def answer(*words: str, kubeconfig: str, status: int) -> Any:
    found, printed, errors = hami(*words, "-o", "json", kubeconfig=kubeconfig)
    assert found == status, (found, printed, errors)
    return json.loads(printed)


@pytest.fixture(scope="module")
def people(product: "Product", tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("people")
    lab = product.lab
    return {
        "operator": person(lab, folder, "operator", ("get", "pods"), ("list", "nodes")),
        "developer": person(lab, folder, "developer", ("get", "pods"), ("create", "pods")),
        "stranger": person(lab, folder, "stranger"),
        "administrator": str(lab.kubeconfig),
    }


@pytest.fixture(scope="module")
def _node(_module_cluster: Cluster) -> None:
    _module_cluster.nodes("ex-1", cards=1, mem_mib=8000)


@pytest.fixture
def waiting(_node: None, cluster: Cluster) -> str:
    """A pod of 6000 MiB that waits: the only card has 5000 left."""
    cluster.submit("there", gpu=1, gpumem=3000)
    cluster.bound("there")
    cluster.submit("waits", gpu=1, gpumem=6000)
    cluster.reason("waits")
    return "default/waits"


def test_who_sees_nodes_sees_the_missing_memory_the_card_and_the_fix(waiting: str, people: dict[str, str]) -> None:
    found = answer("explain", "pod", waiting, kubeconfig=people["operator"], status=1)
    assert "missing 1000 MiB" in found["refused"][0]["text"]
    assert (found["fixes"][0]["text"], found["fixes"][0]["node"]) == ("ask at most 5000 MiB a card", "ex-1")
    assert found["nodes"][0]["cards"][0]["needed"] == 6000
    status, printed, _ = hami("explain", "pod", waiting, kubeconfig=people["operator"])
    assert (status, "ask at most 5000 MiB a card" in printed, "█" in printed) == (1, True, True)


def test_who_sees_pods_only_gets_the_reason_and_his_own_fix(waiting: str, people: dict[str, str]) -> None:
    found = answer("explain", "pod", waiting, kubeconfig=people["developer"], status=1)
    assert (found["detail"], [fix["text"] for fix in found["fixes"]]) == (False, ["ask at most 5000 MiB a card"])
    assert "ex-1" not in json.dumps(found)


def test_who_may_not_see_the_pod_is_told_so(waiting: str, people: dict[str, str]) -> None:
    status, printed, errors = hami("explain", "pod", waiting, kubeconfig=people["stranger"])
    assert (status, printed) == (3, "")
    assert 'user "system:serviceaccount:default:stranger" cannot get pods "waits"' in errors


def test_an_administrator_with_a_certificate_asks_through_the_viewer(waiting: str, people: dict[str, str]) -> None:
    found = answer("explain", "pod", waiting, kubeconfig=people["administrator"], status=1)
    assert found["detail"] is True


def test_fit_answers_by_its_exit_status(waiting: str, people: dict[str, str]) -> None:  # 5.15
    developer = people["developer"]
    assert hami("fit", "--gpumem", "5000", kubeconfig=developer)[0] == 0
    assert hami("fit", "--gpumem", "5001", kubeconfig=developer)[0] == 1
    assert hami("fit", "--gpumem", "5Gi", kubeconfig=developer)[0] == 2
    assert hami("fit", "--gpumem", "10", kubeconfig=people["stranger"])[0] == 3
    status, _, errors = hami("fit", "--gpumem", "10", "-n", "nowhere", kubeconfig=people["administrator"])
    assert (status, "there is no namespace 'nowhere' in this cluster" in errors) == (2, True)
    found = answer(
        "fit", "--gpu", "2", "--gpumem", "10000", "--gpucores", "40", kubeconfig=people["administrator"], status=1
    )
    assert found["refused"][0]["text"] == "NodeInsufficientDevice: asks 2 cards, the node has 1"


def test_a_large_manifest_is_asked_about_too(waiting: str, people: dict[str, str], tmp_path: Path) -> None:  # 5.15
    """A script of 300 KB in its environment: the scheduler takes 64 KB, and is sent what may count."""
    env = [{"name": "SCRIPT", "value": "x" * 300_000}]
    for mib, status in ((5000, 0), (5001, 1)):
        limits = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": mib}
        spec = {"containers": [{"name": "c", "image": "i", "env": env, "resources": {"limits": limits}}]}
        (tmp_path / "pod.yaml").write_text(json.dumps({"kind": "Pod", "metadata": {"name": "p"}, "spec": spec}))
        assert hami("fit", "-f", str(tmp_path / "pod.yaml"), kubeconfig=people["developer"])[0] == status


def test_the_way_past_the_proxy_wants_the_same_rights(waiting: str, people: dict[str, str], product: "Product") -> None:
    url = product.replicas[0].url
    found = answer("explain", "pod", waiting, "--scheduler", url, kubeconfig=people["operator"], status=1)
    assert found["detail"] is True
    status, _, errors = hami("explain", "pod", waiting, "--scheduler", url, kubeconfig=people["administrator"])
    assert (status, "say who you are" in errors) == (3, True)


def test_a_recorded_snapshot_gives_the_same_answer(waiting: str, people: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    assert hami("record", "--snapshot", "--out", str(file), kubeconfig=people["administrator"])[0] == 0
    live = answer("explain", "pod", waiting, kubeconfig=people["administrator"], status=1)
    filed = answer("explain", "pod", waiting, "--snapshot", str(file), kubeconfig=people["administrator"], status=1)
    assert filed["refused"] == live["refused"]
    assert filed["fixes"] == live["fixes"]
    frag = answer("frag", kubeconfig=people["administrator"], status=0)
    assert (frag["target"], [move["pod"]["name"] for move in frag["moves"]]) == ("a whole card", [])


@pytest.mark.usefixtures("_node")
def test_a_namespace_s_quota_counts_live_and_in_a_file(
    cluster: Cluster, people: dict[str, str], product: "Product", tmp_path: Path
) -> None:
    meta = {"namespace": "small", "name": "cards"}
    spec = {"hard": {"limits.nvidia.com/gpumem": "99"}}
    product.lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "small"}})
    product.lab.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": spec})
    file, ask = tmp_path / "cluster.json", ("fit", "--gpumem", "100", "--gpucores", "1", "-n", "small")
    seen = lambda: hami(*ask, kubeconfig=people["administrator"])[0] == 1  # noqa: E731
    cluster.until("the scheduler knows the quota", seen)
    assert hami("record", "--snapshot", "--out", str(file), kubeconfig=people["administrator"])[0] == 0
    live = answer(*ask, kubeconfig=people["administrator"], status=1)
    assert [group["text"] for group in live["refused"]] == [
        "ResourceQuotaNotFit: namespace small: limits.nvidia.com/gpumem: used 0, asked 100, limit 99"
    ]
    filed = answer(*ask, "--snapshot", str(file), kubeconfig=people["administrator"], status=1)
    assert (filed["refused"], filed["fixes"]) == (live["refused"], live["fixes"])
    assert filed["fixes"][0]["value"] == 99


def test_a_pod_s_events_name_what_would_make_it_fit(waiting: str, cluster: Cluster) -> None:
    def advice() -> list[str]:
        return [message for reason, message in cluster.events("waits") if reason == "WouldFit"]

    told = cluster.until("the pod is told what would help", advice)
    assert told == ["the nearest change that makes it fit: ask at most 5000 MiB a card (on ex-1)"]


@pytest.mark.usefixtures("_node")
def test_pods_arriving_and_leaving_are_recorded(cluster: Cluster, people: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "cluster.jsonl"
    words = ["record", "--for", "30", "--out", str(file), "--kubeconfig", people["administrator"]]
    recorder = subprocess.Popen([sys.executable, "-m", "hami", *words])
    try:
        events = lambda: [json.loads(line)["event"] for line in file.read_text().splitlines()]  # noqa: E731
        cluster.until("recording has begun", lambda: file.exists() and "synced" in events())
        cluster.submit("comes", gpu=1, gpumem=100)
        cluster.bound("comes")
        cluster.delete("comes")
        cluster.until("it has left", lambda: "left" in events())
        assert [one for one in events() if one in ("pod", "bound", "left")] == ["pod", "bound", "left"]
    finally:
        recorder.terminate()
        recorder.wait(10)
