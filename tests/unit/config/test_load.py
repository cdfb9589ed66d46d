"""Configuration files: HAMi's are read as they are, mistakes are named with their path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.config.load import OTHER_VENDORS, device_config, node_overrides, unsupported
from hami.config.schema import DeviceConfig, FilterDevices, MigAllowlist, NodeOverride, NvidiaConfig
from hami.model.errors import Malformed

HAMI_CHART = """
nvidia:
  resourceCountName: nvidia.com/gpu
  resourceMemoryName: nvidia.com/gpumem
  resourceMemoryPercentageName: nvidia.com/gpumem-percentage
  resourceCoreName: nvidia.com/gpucores
  resourcePriorityName: nvidia.com/priority
  overwriteEnv: false
  defaultMemory: 0
  defaultCores: 0
  defaultGPUNum: 1
  memoryFactor: 1
  deviceSplitCount: 10
  deviceMemoryScaling: 1
  deviceCoreScaling: 1
  preConfiguredDeviceMemory: 0
  gpuCorePolicy: default
  libCudaLogLevel: 1
  runtimeClassName: ""
  migProfileAllowlist:
    - models: ["A30"]
      profiles: ["1g.6gb", "2g.12gb", "4g.24gb"]
cambricon:
  resourceCountName: cambricon.com/vmlu
hygon: {resourceCountName: hygon.com/dcunum, memoryFactor: 1}
iluvatars:
  - chipName: MR-V100
vnpus:
  hamiVnpuCore: false
  configs: []
"""


def test_hamis_own_file_is_read_and_what_does_not_count_is_told() -> None:
    allowlist = [MigAllowlist(["A30"], ["1g.6gb", "2g.12gb", "4g.24gb"])]
    assert device_config(HAMI_CHART, "f") == DeviceConfig(NvidiaConfig(mig_profile_allowlist=allowlist))
    assert [line.split(":")[1] for line in unsupported(HAMI_CHART, "f")] == [
        "$.cambricon", "$.hygon", "$.iluvatars", "$.vnpus",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "nvidia:", "{}", "# nothing\n", *(f"{name}: {{a: b}}" for name in OTHER_VENDORS)])
def test_what_is_not_said_has_hamis_defaults(text: str) -> None:
    assert device_config(text, "f") == DeviceConfig()


def test_keys_hami_has_dropped_are_passed_over_and_told() -> None:
    text = "nvidia: {knownMigGeometries: [], deviceSplitCount: 4}"
    assert device_config(text, "f").nvidia.device_split_count == 4
    assert unsupported(text, "f") == ("f:$.nvidia.knownMigGeometries: no longer read; it does not count",)


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("nvidia: {deviceSplitCount: 0}", "$.nvidia.deviceSplitCount", "expected `int` >= 1"),
        ("nvidia: {deviceSplitCount: ten}", "$.nvidia.deviceSplitCount", "expected `int`, got `str`"),
        ("nvidia: {deviceSplitCont: 4}", "$.nvidia.deviceSplitCont", "did you mean deviceSplitCount?"),
        ("nvidea: {}", "$.nvidea", "did you mean nvidia?"),
        ("zzz: {}", "$.zzz", "known keys are nvidia"),
        ("nvidia: {gpuCorePolicy: forse}", "$.nvidia.gpuCorePolicy", "one of default, disable, force"),
        ("nvidia: {migProfileAllowlist: [{models: [a], profile: [b]}]}", "$.nvidia.migProfileAllowlist[0].profile",
         "did you mean profiles?"),
        ("nvidia: {resourceCoreName: nvidia.com/gpu}", "$.nvidia.resourceCoreName", "a resource name that no other"),
        ("nvidia: {resourceCountName: ''}", "$.nvidia.resourceCountName", "the resource that counts cards"),
        ("nvidia: 5", "$.nvidia", "expected `object`, got `int`"),
        ("[]", "$", "a mapping of sections"),
        ("nvidia: {defaultCores: 1, defaultCores: 2}", "$", "YAML at line 1, column 27: the key 'defaultCores' s"),
        ("nvidia: [", "$", "YAML at line 1"),
        ("!!python/object:os.system {}", "$", "YAML at line 1"),
        ("nvidia: {defaultCores: !!bool maybe}", "$", "YAML at line 1, column 24: 'maybe' is of no such kind as its"),
        ("{{ .Values.config }}", "$", "YAML at line 1, column 2: found unhashable key"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_path_and_way_out(text: str, path: str, allowed: str) -> None:
    with pytest.raises(Malformed) as fault:
        device_config(text, "device-config.yaml")
    assert fault.value.path == f"device-config.yaml:{path}"
    assert fault.value.allowed.startswith(allowed)


def test_the_nodes_file_is_read_as_hami_writes_it() -> None:
    text = """{"nodeconfig":[{"name":"gpu-a","operatingmode":"mig","devicememoryscaling":1.5,"devicecorescaling":1,
      "devicesplitcount":4,"preconfigureddevicememory":0,"libcudaloglevel":"3","enablenumatopology":true,
      "migstrategy":"none","filterdevices":{"uuid":["GPU-a"],"index":[3]},"enablegetpreferredallocation":true}]}"""
    (override,) = node_overrides(text, "config.json").nodeconfig
    assert override == NodeOverride(
        name="gpu-a",
        operatingmode="mig",
        devicememoryscaling=1.5,
        devicecorescaling=1.0,
        devicesplitcount=4,
        preconfigureddevicememory=0,
        libcudaloglevel="3",
        enablenumatopology=True,
        migstrategy="none",
        filterdevices=FilterDevices(["GPU-a"], [3]),
        enablegetpreferredallocation=True,
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"nodeconfig":[{}]}', "$.nodeconfig[0]"),
        ('{"nodeconfig":[{"name":"a","operatingmode":"x"}]}', "$.nodeconfig[0].operatingmode"),
        ('{"nodeconfig":[{"name":"a","filterdevices":{"index":[-1]}}]}', "$.nodeconfig[0].filterdevices.index[0]"),
        ('{"nodeconfig":[{"name":"a","splitcount":3}]}', "$.nodeconfig[0].splitcount"),
    ],
)
def test_a_mistake_in_the_nodes_file_is_named_with_its_path(text: str, path: str) -> None:
    with pytest.raises(Malformed) as fault:
        node_overrides(text, "config.json")
    assert fault.value.path == f"config.json:{path}"


@given(st.text(max_size=60) | st.text(alphabet="nvidia:{}[] \n-'&*!", max_size=40))
def test_any_text_is_a_configuration_or_malformed(text: str) -> None:
    for read in (device_config, node_overrides, unsupported):
        try:
            read(text, "f")
        except Malformed as fault:
            assert fault.path.startswith("f:$")  # noqa: PT017
