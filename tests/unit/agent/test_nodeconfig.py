import json
from pathlib import Path

import pytest

from hami.agent.cards.nodeconfig import NodeConfig, NodeRules, merge
from hami.config.schema import DeviceConfig, FilterDevices, NodeOverride, NodeOverrides, NvidiaConfig
from hami.model.errors import Malformed

CLUSTER = DeviceConfig(
    NvidiaConfig(device_split_count=10, device_memory_scaling=2.0, enable_numa_topology=True, lib_cuda_log_level=3)
)


def merged(*entries: NodeOverride) -> NodeRules:
    return merge(CLUSTER, NodeOverrides(list(entries)), "gpu-a")


def test_a_node_without_an_entry_has_the_clusters_values() -> None:
    assert merged(NodeOverride("gpu-b", devicesplitcount=4)) == NodeRules(nvidia=CLUSTER.nvidia)


def test_an_entry_changes_only_what_it_names() -> None:
    rules = merged(NodeOverride("gpu-a", devicesplitcount=4))
    assert rules.nvidia.device_split_count == 4
    assert rules.nvidia.device_memory_scaling == 2.0


def test_zero_false_and_an_empty_list_override_too() -> None:
    first = NodeOverride("gpu-a", filterdevices=FilterDevices(index=[1]), preconfigureddevicememory=100)
    second = NodeOverride(
        "gpu-a",
        enablenumatopology=False,
        preconfigureddevicememory=0,
        filterdevices=FilterDevices(),
        enablegetpreferredallocation=False,
        libcudaloglevel="0",
    )
    rules = merged(first, second)
    assert rules.nvidia.enable_numa_topology is False
    assert rules.nvidia.pre_configured_device_memory == 0
    assert rules.nvidia.lib_cuda_log_level == 0
    assert rules.filtered == FilterDevices()
    assert rules.preferred_allocation is False


def test_all_entries_of_the_name_count_in_file_order() -> None:
    rules = merged(
        NodeOverride("gpu-a", devicesplitcount=4, operatingmode="mig"),
        NodeOverride("gpu-a", devicesplitcount=5),
    )
    assert (rules.nvidia.device_split_count, rules.mode) == (5, "mig")


def test_a_log_level_that_is_none_is_refused_with_its_place() -> None:
    with pytest.raises(Malformed, match=r"\$\.nodeconfig\[0\]\.libcudaloglevel: 'loud'"):
        merged(NodeOverride("gpu-a", libcudaloglevel="loud"))
    assert merged(NodeOverride("gpu-a", libcudaloglevel="")).nvidia.lib_cuda_log_level == 3


def write(file: Path, **entry: object) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"nodeconfig": [{"name": "gpu-a", **entry}]}))
    fresh.rename(file)


def test_a_change_of_the_file_counts_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    config = NodeConfig("gpu-a", None, file)
    assert config.rules.nvidia.device_split_count == 10
    assert config.refresh() is False
    write(file, devicesplitcount=4)
    assert config.refresh() is True
    assert config.rules.nvidia.device_split_count == 4
    file.unlink()
    assert config.refresh() is True
    assert config.rules.nvidia.device_split_count == 10


def test_a_file_that_breaks_leaves_the_last_good_one_in_force_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write(file, filterdevices={"index": [0]})
    config = NodeConfig("gpu-a", None, file)
    write(file, filterdevice={"index": []})
    assert config.refresh() is False
    assert config.rules.filtered.index == [0]
    assert "filterdevice" in (config.problem or "")
    write(file, filterdevices={"index": []})
    assert config.refresh() is True
    assert config.problem is None
    assert config.rules.filtered.index == []


def test_a_bad_file_at_the_start_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write(file, devicesplitcount=0)
    with pytest.raises(Malformed, match="devicesplitcount"):
        NodeConfig("gpu-a", None, file)
    with pytest.raises(Malformed, match="a text file"):
        NodeConfig("gpu-a", tmp_path / "none.yaml", None)
