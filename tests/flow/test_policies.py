"""Policies, rules, links, MIG and quota on a real control plane: what a user writes is what is done."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hami.kube import paths
from hami.kube.errors import Forbidden
from hami.model.card import MigProfile, Placement

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

NODE, CARD = "hami.io/node-scheduler-policy", "hami.io/gpu-scheduler-policy"
TYPE, NOT_TYPE = "nvidia.com/use-gputype", "nvidia.com/nouse-gputype"
A100 = tuple(
    MigProfile(name, mem, core, slices, tuple(Placement(start, size) for start in starts))
    for name, mem, core, slices, size, starts in (
        ("1g.5gb", 4864, 15, 1, 1, range(7)),
        ("2g.10gb", 9856, 29, 2, 2, (0, 2, 4)),
        ("3g.20gb", 19968, 43, 3, 4, (0, 4)),
        ("7g.40gb", 40192, 100, 7, 8, (0,)),
    )
)
LINKED = tuple(tuple(0 if a == b else 10 if 7 in (a, b) else 420 for b in range(8)) for a in range(8))


@pytest.fixture(scope="module", autouse=True)
def _nodes(_module_cluster: Any) -> None:
    _module_cluster.nodes("even-a", "even-b", cards=2, mem_mib=16000, model="NVIDIA-A10")
    _module_cluster.nodes("linked", cards=8, mem_mib=16000, model="NVIDIA-H100", links=LINKED)
    _module_cluster.nodes("pair", cards=2, mem_mib=16000, model="NVIDIA-H100", links=((0, 420), (420, 0)))
    _module_cluster.nodes("parted", cards=1, mem_mib=40960, slots=7, model="NVIDIA-A100-40", mig_profiles=A100)


def cards(cluster: Any, name: str) -> list[str]:
    """Cards of a bound pod, without the node's name."""
    cluster.bound(name)
    entries = (cluster.record(name) or "").replace(";", "").split(":")
    return [entry.split(",")[0].rpartition("-")[2] for entry in entries if entry]


def place(cluster: Any, name: str, *, gpumem: int = 2000, gpu: int = 1, gpucores: int = 0, **annotations: str) -> str:
    keyed = {"node": NODE, "card": CARD, "type": TYPE, "not_type": NOT_TYPE, "uuid": "nvidia.com/use-gpuuuid",
             "not_uuid": "nvidia.com/nouse-gpuuuid", "numa": "nvidia.com/numa-bind", "mode": "nvidia.com/vgpu-mode",
             "weights": "hami.io/device-scoring-weights"}  # fmt: skip
    given = {keyed[key]: value for key, value in annotations.items()}
    submitted: str = cluster.submit(name, annotations=given, gpu=gpu, gpumem=gpumem, gpucores=gpucores)
    return submitted


def test_node_and_card_policies_each_do_what_they_say(cluster: Any) -> None:  # 6.1 to 6.5, 6.8
    def pair(first: str, **policies: str) -> tuple[bool, bool]:
        """Whether two pods share the node, and the card."""
        for name in (first, f"{first}-2"):
            place(cluster, name, type="A10", not_type="A100", gpucores=20, **policies)
            cluster.bound(name)
        same_node = cluster.node_of(first) == cluster.node_of(f"{first}-2")
        same_card = cluster.record(first) == cluster.record(f"{first}-2")
        cluster.clear()
        return same_node, same_card

    assert pair("packed", node="binpack", card="binpack") == (True, True)
    assert pair("apart", node="binpack", card="spread") == (True, False)
    assert pair("spread", node="spread", card="binpack")[0] is False
    assert pair("default") == (True, False)


def test_mutex_waits_for_an_empty_card_and_takes_it(cluster: Any) -> None:  # 6.9, 6.10
    for number in range(4):
        place(cluster, f"user-{number}", type="A10", not_type="A100", node="spread")
    cluster.bound(*(f"user-{number}" for number in range(4)))
    place(cluster, "alone", type="A10", not_type="A100", card=" mutex , binpack,numa,nonsense ")
    assert "ExclusiveDeviceAllocateConflict" in cluster.reason("alone")
    freed = cluster.record("user-2")
    cluster.delete("user-2")
    cluster.bound("alone")
    assert cluster.record("alone") == freed


def test_types_and_uuids_are_obeyed_and_named_in_refusals(cluster: Any) -> None:  # 6.11, 6.12
    place(cluster, "typed", type="A30,a10", not_type="A100")
    assert cluster.bound("typed")[0].startswith("even-")
    place(cluster, "impossible", type="H200")
    assert "CardTypeMismatch" in cluster.reason("impossible")
    place(cluster, "this-one", uuid="GPU-linked-5")
    assert cards(cluster, "this-one") == ["5"]
    place(cluster, "not-those", type="H100", uuid="GPU-pair-0, GPU-pair-1", not_uuid="GPU-pair-0")
    assert cards(cluster, "not-those") == ["1"]
    place(cluster, "no-such", uuid="GPU-x")
    assert "CardUuidMismatch" in cluster.reason("no-such")


def test_two_cards_bound_to_one_numa_node(cluster: Any) -> None:  # 6.13
    place(cluster, "near", gpu=2, type="H100", not_uuid="GPU-linked-0,GPU-linked-2,GPU-linked-3", numa="true",
          card="numa")  # fmt: skip
    found = cards(cluster, "near")
    assert cluster.node_of("near") == "linked"
    assert set(found) <= {"4", "5", "6", "7"}
    place(cluster, "too-many", gpu=2, type="A10", not_type="A100", numa="true")
    assert "NumaNotFit" in cluster.reason("too-many"), "each of the two cards is on a NUMA node of its own"


def test_links_choose_cards_and_the_smallest_node_is_taken(cluster: Any) -> None:  # 6.14, 6.15
    aware = {"card": "topology-aware", "type": "H100"}
    place(cluster, "two", gpu=2, **aware)
    assert cluster.bound("two") == ["pair"]
    place(cluster, "seven", gpu=7, **aware)
    assert cards(cluster, "seven") == ["0", "1", "2", "3", "4", "5", "6"]
    cluster.clear()
    place(cluster, "one", not_uuid="GPU-pair-0,GPU-pair-1", **aware)
    assert cards(cluster, "one") == ["7"]
    place(cluster, "two-more", gpu=2, not_uuid="GPU-pair-0,GPU-pair-1", **aware)
    assert "7" not in cards(cluster, "two-more")


def test_scoring_weights_change_the_winner(cluster: Any) -> None:  # 6.16
    where = "GPU-even-a-0,GPU-even-a-1"

    def winner(name: str, weights: str) -> list[str]:
        place(cluster, name, uuid=where, card="binpack", gpumem=100, weights=weights)
        found = cards(cluster, name)
        cluster.delete(name)
        return found

    place(cluster, "much-memory", uuid="GPU-even-a-0", gpumem=9000)
    place(cluster, "much-time", uuid="GPU-even-a-1", gpumem=100, gpucores=80)
    cluster.bound("much-memory", "much-time")
    assert winner("by-memory", "slot=0,core=0,memory=1") == ["0"]
    assert winner("by-time", "memory=0,core=1,slot=0") == ["1"]


def test_a_card_in_mig_mode_gives_out_instances_with_profile_and_place(cluster: Any) -> None:  # 7.1, 7.3, 7.5
    place(cluster, "instances", gpu=2, gpumem=8000, mode="mig")
    assert cluster.bound("instances") == ["parted"]
    assert cluster.record("instances") == "GPU-parted-0,NVIDIA,9856,29:GPU-parted-0,NVIDIA,9856,29:;"
    made = json.loads(cluster.get("instances")["metadata"]["annotations"]["hami.io/vgpu-mig-allocations"])
    assert [(one["profile"], one["placement"]) for one in made] == [
        ("2g.10gb", {"start": 0, "size": 2}),
        ("2g.10gb", {"start": 2, "size": 2}),
    ]
    place(cluster, "large", gpumem=30000, mode="mig")
    reason = cluster.reason("large")
    assert "CardMigTopologyInfeasible" in reason
    place(cluster, "third", gpumem=8000, mode="mig")
    assert cluster.bound("third") == ["parted"]
    place(cluster, "soft", gpumem=8000, mode="hami-core")
    assert cluster.bound("soft") != ["parted"]
    cluster.delete("instances", "third")
    cluster.bound("large")
    taken = json.loads(cluster.get("large")["metadata"]["annotations"]["hami.io/vgpu-mig-allocations"])
    assert [one["profile"] for one in taken] == ["7g.40gb"]


@pytest.fixture
def quota(cluster: Any) -> Iterator[Any]:
    """A ResourceQuota of 8000 MiB in the pods' namespace."""
    body = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "cards", "namespace": "default"},
        "spec": {"hard": {"limits.nvidia.com/gpumem": "8000"}},
    }
    cluster._do(cluster.kube.create(paths.resource_quotas("default"), body))
    yield body
    cluster._do(cluster.kube.delete(paths.resource_quotas("default", "cards")))


@pytest.mark.usefixtures("quota")
def test_a_namespace_is_held_to_its_quota_of_memory(cluster: Any, product: Any) -> None:  # 8.7
    def denied() -> str:
        try:
            place(cluster, "too-much", gpu=2, gpumem=5000)
        except Forbidden as fault:
            return str(fault)
        cluster.delete("too-much")
        return ""

    said = cluster.until("the quota is known", denied)
    assert "exceeding resource quota" in said
    assert "limits.nvidia.com/gpumem: used 0, asked 10000, limit 8000" in said
    place(cluster, "first", gpumem=5000)
    cluster.bound("first")
    with pytest.raises(Forbidden, match="used 5000, asked 4000, limit 8000"):
        place(cluster, "second", gpumem=4000)
    cluster.create(cluster.pod("whole", gpu=1))
    assert "ResourceQuotaNotFit" in cluster.reason("whole")
    page = product.replicas[0].get("/metrics")[1]
    assert (
        'hami_resource_quota_used{zone="vGPU",namespace="default",quota_name="nvidia.com/gpumem",limit="8000"} 5000'
        in page
    )
    cluster._do(
        cluster.kube.patch(
            paths.resource_quotas("default", "cards"), {"spec": {"hard": {"limits.nvidia.com/gpumem": "60000"}}}
        )
    )
    cluster.bound("whole", timeout=60)
