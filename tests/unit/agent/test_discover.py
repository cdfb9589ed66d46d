from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from hami.agent.cards.discover import scan
from hami.agent.cards.inventory import Found, LeftOut
from hami.agent.cards.nodeconfig import NodeRules
from hami.config.schema import FilterDevices, NvidiaConfig
from hami.model.card import Card
from hami.sim.cards import Bench, Rack, SimCard
from hami.sim.fixtures import bench, nvml
from hami.sim.rackfile import write_sysfs
from hami.vendors.nvidia import NVIDIA
from hami.vendors.nvidia.driver import Driver

__all__ = ["bench", "nvml"]
NOWHERE = Path("/nowhere")


def rules(**nvidia: object) -> NodeRules:
    return NodeRules(nvidia=NvidiaConfig(**nvidia))


def cards(nvml: Driver, given: NodeRules, sysfs: Path = NOWHERE) -> list[Card]:
    seen = scan(nvml, given, sysfs)
    assert seen.left_out == ()
    return [entry.card for entry in seen.found]


def test_a_card_is_offered_as_configured(bench: Bench, nvml: Driver) -> None:
    seen = scan(nvml, rules(device_split_count=4), NOWHERE)
    assert seen.found[1] == Found(
        Card(
            id=bench.uuid(1),
            family=NVIDIA,
            model="NVIDIA A100-SXM4-40GB",
            index=1,
            slots=4,
            mem_mib=40960,
            core_percent=100,
            numa=1,
        ),
        minor=1,
        pci_id="0000:09:00.0",
    )


def test_a_model_without_the_makers_name_gets_it_in_front(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("T4"), SimCard("A10")]))
    assert [card.model for card in cards(nvml, rules())] == ["NVIDIA-Tesla T4", "NVIDIA A10"]


@pytest.mark.parametrize(("scaling", "mem_mib"), [(1.0, 15360), (1.5, 23040), (0.333, 5114), (1.1, 16896)])
def test_memory_is_scaled_and_cut(bench: Bench, nvml: Driver, scaling: float, mem_mib: int) -> None:
    bench.put(Rack([SimCard("T4")]))
    assert cards(nvml, rules(device_memory_scaling=scaling))[0].mem_mib == mem_mib


def test_cores_are_scaled_and_cut(bench: Bench, nvml: Driver) -> None:
    assert cards(nvml, rules(device_core_scaling=1.5))[0].core_percent == 150
    assert cards(nvml, rules(device_core_scaling=0.29))[0].core_percent == int(0.29 * 100)


def test_filtered_cards_are_left_out_by_index_and_uuid_and_others_keep_their_index(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard(), SimCard(), SimCard()]))
    filtered = FilterDevices(uuid=[bench.uuid(1)], index=[0])
    seen = scan(nvml, replace(rules(), filtered=filtered), NOWHERE)
    assert [entry.card.index for entry in seen.found] == [2]
    assert [(entry.index, entry.fault) for entry in seen.left_out] == [(0, False), (1, False)]


def test_a_card_filtered_by_index_is_not_touched(bench: Bench, nvml: Driver) -> None:
    bench.change(0, lost=True)
    seen = scan(nvml, replace(rules(), filtered=FilterDevices(index=[0])), NOWHERE)
    assert seen.left_out == (LeftOut(0, "left out by filterdevices", None, fault=False),)


@pytest.mark.parametrize("function", ["nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetPciInfo", "*"])
def test_a_card_that_cannot_be_read_is_left_out_and_the_others_stay(bench: Bench, nvml: Driver, function: str) -> None:
    bench.fail(0, function, "gpu-is-lost")
    seen = scan(nvml, rules(), NOWHERE)
    assert [entry.card.index for entry in seen.found] == [1]
    assert len(seen.left_out) == 1
    assert "GPU is lost" in seen.left_out[0].reason


def test_memory_the_driver_cannot_tell_comes_from_the_configuration(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("T4", mem_mib=0)]))
    (left_out,) = scan(nvml, rules(), NOWHERE).left_out
    assert "set preConfiguredDeviceMemory" in left_out.reason
    assert cards(nvml, rules(pre_configured_device_memory=120000))[0].mem_mib == 120000


def test_the_kernels_numa_node_comes_before_the_drivers(bench: Bench, nvml: Driver, tmp_path: Path) -> None:
    write_sysfs(tmp_path, Rack([SimCard(numa=3), SimCard(numa=-1)]))
    assert [card.numa for card in cards(nvml, rules(), tmp_path)] == [3, 1]
    bench.fail(1, "nvmlDeviceGetMemoryAffinity", "not-supported")
    assert [card.numa for card in cards(nvml, rules(), tmp_path)] == [3, 0]


def test_a_card_in_mig_mode_is_not_shared_as_a_whole(bench: Bench, nvml: Driver) -> None:
    bench.change(0, mig="on")
    (left_out,) = scan(nvml, rules(), NOWHERE).left_out
    assert "nvidia-smi -mig 0" in left_out.reason


def test_a_missing_minor_is_no_reason_to_leave_a_card_out(bench: Bench, nvml: Driver) -> None:
    bench.fail(0, "nvmlDeviceGetMinorNumber", "not-supported")
    assert [entry.minor for entry in scan(nvml, rules(), NOWHERE).found] == [None, 1]


def test_no_cards_are_no_error() -> None:
    assert scan(SimpleNamespace(count=lambda: 0), rules(), NOWHERE).found == ()
