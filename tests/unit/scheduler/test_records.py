"""Node and Pod objects into what the ledger is told."""

from typing import Any

import msgspec
import pytest

from hami.config.schema import DeviceConfig
from hami.model.card import Instance
from hami.model.ids import Family
from hami.model.plan import Charge
from hami.model.quota import Spent
from hami.scheduler.watch.records import node_record, pod_record
from hami.vendors.table import load
from hami.wire import register
from hami.wire.objects import Node, Pod

VENDORS = load(DeviceConfig())


def node(cards: Any = (), allocatable: str | None = "10", **annotations: str) -> Node:
    keyed = {f"hami.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    if cards:
        keyed["hami.io/node-nvidia-register"] = register.encode(cards)
    given = {"nvidia.com/gpu": allocatable} if allocatable is not None else {}
    return msgspec.convert({"metadata": {"name": "n", "annotations": keyed}, "status": {"allocatable": given}}, Node)


def pod(record: str, containers: int = 1, init: list[dict[str, Any]] | None = None, **more: Any) -> Pod:
    status = more.pop("status", {})
    annotations = {"hami.io/vgpu-devices-allocated": record, "hami.io/vgpu-node": "n", **more}
    return msgspec.convert(
        {
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "annotations": annotations},
            "spec": {
                "nodeName": "n",
                "containers": [{"name": f"c{number}"} for number in range(containers)],
                "initContainers": init,
                "priority": 7,
            },
            "status": status,
        },
        Pod,
    )


def test_a_registered_node_becomes_its_cards(make_cards: Any) -> None:
    cards = make_cards("n", 2)
    record = node_record(node(cards, device_cordon="GPU-n-1, GPU-x"), VENDORS, lambda _: None)
    assert record is not None
    assert (record.name, record.cards, record.problem) == ("n", cards, None)
    assert "GPU-n-1" in record.cordoned


def test_a_node_without_a_register_is_none_of_ours() -> None:
    assert node_record(node(), VENDORS, lambda _: None) is None


@pytest.mark.parametrize("allocatable", ["0", None])
def test_a_node_whose_kubelet_offers_no_cards_is_out_and_says_so(make_cards: Any, allocatable: str | None) -> None:
    record = node_record(node(make_cards("n"), allocatable), VENDORS, lambda _: None)
    assert record is not None
    assert record.problem == ("kubelet offers no nvidia.com/gpu: the node's device plugin is not registered with it")


def test_a_silent_agent_puts_the_node_out(make_cards: Any) -> None:
    record = node_record(node(make_cards("n")), VENDORS, lambda name: f"{name} is silent")
    assert record is not None
    assert record.problem == "n is silent"


def test_a_broken_register_puts_the_node_out_and_names_the_annotation() -> None:
    record = node_record(node(node_nvidia_register='[{"id":5}]'), VENDORS, lambda _: None)
    assert record is not None
    assert record.problem is not None
    assert "hami.io/node-nvidia-register" in record.problem
    assert record.cards == ()


def test_a_bound_pod_becomes_its_charges() -> None:
    record = pod_record(pod("GPU-1,NVIDIA,3000,30:GPU-2,NVIDIA,3000,30:;"), VENDORS)
    assert record is not None
    assert record.charges == (Charge("GPU-1", 1, 3000, 30), Charge("GPU-2", 1, 3000, 30))  # type: ignore[arg-type]
    assert (record.node, record.priority, record.problem) == ("n", 7, None)


def test_init_containers_count_as_a_peak_until_they_are_done() -> None:
    text = "GPU-1,NVIDIA,8000,0:;GPU-1,NVIDIA,3000,0:;"
    init = [{"name": "i"}]
    running = pod_record(pod(text, init=init), VENDORS)
    done = {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}]}
    failed = {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1}}}]}
    assert running is not None
    assert running.charges[0].mem_mib == 8000
    assert pod_record(pod(text, init=init, status=done), VENDORS).charges[0].mem_mib == 3000  # type: ignore[union-attr]
    assert pod_record(pod(text, init=init, status=failed), VENDORS).charges[0].mem_mib == 8000  # type: ignore[union-attr]


def test_a_sidecar_counts_beside_the_others_and_is_not_waited_for() -> None:
    text = "GPU-1,NVIDIA,1000,0:;GPU-1,NVIDIA,8000,0:;GPU-1,NVIDIA,3000,0:;"
    init = [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]
    done = {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}]}
    assert pod_record(pod(text, init=init), VENDORS).charges[0].mem_mib == 9000  # type: ignore[union-attr]
    assert pod_record(pod(text, init=init, status=done), VENDORS).charges[0].mem_mib == 4000  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["GPU-1,NVIDIA,many,0:;", "GPU-1;", "GPU-1,OTHER,1,1:;"])
def test_a_record_that_cannot_be_read_is_a_problem_and_no_empty_record(text: str) -> None:
    record = pod_record(pod(text), VENDORS)
    assert record is not None
    assert record.charges == ()
    assert record.problem is not None
    assert "hami.io/vgpu-devices-allocated" in record.problem


def test_a_record_made_for_another_node_is_a_problem() -> None:
    record = pod_record(pod("GPU-1,NVIDIA,3000,0:;", **{"hami.io/vgpu-node": "elsewhere"}), VENDORS)
    assert record is not None
    assert record.problem is not None
    assert "elsewhere" in record.problem


def test_a_record_with_the_wrong_number_of_containers_counts_every_entry() -> None:
    # HAMi up to 2.10 dropped the empty entries of containers without cards.
    record = pod_record(pod("GPU-1,NVIDIA,3000,0:;GPU-1,NVIDIA,4000,0:;", init=[{"name": "i"}], containers=2), VENDORS)
    assert record is not None
    assert (record.charges[0].mem_mib, record.problem) == (7000, None)


def test_pods_that_are_pending_or_without_a_record_hold_nothing() -> None:
    unbound = msgspec.structs.replace(pod("GPU-1,NVIDIA,3000,0:;"), spec=msgspec.convert({}, type(pod("").spec)))
    assert pod_record(unbound, VENDORS) is None
    plain = {"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n"}}
    assert pod_record(msgspec.convert(plain, Pod), VENDORS) is None


def test_what_links_are_worth_is_read_and_nonsense_puts_the_node_out(make_cards: Any) -> None:
    scores = '[{"uuid":"GPU-n-0","score":{"GPU-n-1":420}}]'
    record = node_record(node(make_cards("n", 2), node_nvidia_score=scores), VENDORS, lambda _: None)
    assert record is not None
    assert record.links == {"GPU-n-0": {"GPU-n-1": 420}}
    assert record.problem is None
    record = node_record(node(make_cards("n", 2), node_nvidia_score='[{"uuid":7}]'), VENDORS, lambda _: None)
    assert record is not None
    assert record.problem is not None
    assert "annotation hami.io/node-nvidia-score" in record.problem


def test_instances_of_a_record_have_their_places_and_nonsense_closes_the_node() -> None:
    place = '"profile":"2g.10gb","placement":{"start":2,"size":2}'
    entry = f'[{{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-n-0",{place}}}]'
    key = "hami.io/vgpu-mig-allocations"
    record = pod_record(pod("GPU-n-0,NVIDIA,9856,29:;", **{key: entry}), VENDORS)
    assert record is not None
    instance = Instance("2g.10gb", 2, 2)
    assert record.charges == (Charge("GPU-n-0", 1, 9856, 29, (instance,)),)
    assert record.containers[0][0].instance == instance
    record = pod_record(pod("GPU-x,NVIDIA,9856,29:;", **{key: entry}), VENDORS)
    assert record is not None
    assert "cannot be read" in (record.problem or "")


def test_what_a_pod_spends_of_its_quota_shrinks_when_its_init_containers_are_done() -> None:
    init = [{"name": "i"}]
    text = "GPU-n-0,NVIDIA,800,0:;GPU-n-0,NVIDIA,500,20:;"
    record = pod_record(pod(text, init=init), VENDORS)
    assert record is not None
    assert record.spent == (Spent(Family("NVIDIA"), 1, 800, 20),)
    done = {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}]}
    record = pod_record(pod(text, init=init, status=done), VENDORS)
    assert record is not None
    assert record.spent == (Spent(Family("NVIDIA"), 1, 500, 20),)
