"""What can be configured, with HAMi's key names and HAMi's defaults.

`DeviceConfig` is the cluster's device-config.yaml, read by scheduler and agent;
`NodeOverride` is one entry of a node agent's config.json. Unknown keys are
errors with their path: a typo must not turn into a default.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Percent = Annotated[int, Meta(ge=0, le=100)]
Mib = Annotated[int, Meta(ge=0)]
Scaling = Annotated[float, Meta(gt=0, le=100)]
CorePolicy = Literal["default", "force", "disable"]
OperatingMode = Literal["hami-core", "mig", "mps"]


class MigAllowlist(Struct, frozen=True, forbid_unknown_fields=True):
    """Profiles that may be created on cards whose model contains one of `models`."""

    models: list[str]
    profiles: list[str]


class NvidiaConfig(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Section ``nvidia`` of device-config.yaml."""

    resource_count_name: str = "nvidia.com/gpu"
    resource_memory_name: str = "nvidia.com/gpumem"
    resource_memory_percentage_name: str = "nvidia.com/gpumem-percentage"
    resource_core_name: str = "nvidia.com/gpucores"
    resource_priority_name: str = "nvidia.com/priority"
    overwrite_env: bool = False
    """Containers without a card get NVIDIA_VISIBLE_DEVICES=none."""
    default_memory: Mib = 0
    """MiB a card when none is asked; 0 is the whole card."""
    default_cores: Percent = 0
    default_gpu_num: Annotated[int, Meta(ge=0)] = msgspec.field(name="defaultGPUNum", default=1)
    """Cards implied by memory or cores alone; 0 implies none."""
    memory_factor: Annotated[int, Meta(ge=1)] = 1
    """MiB a unit of the memory resource."""
    device_split_count: Annotated[int, Meta(ge=1)] = 10
    device_memory_scaling: Scaling = 1.0
    device_core_scaling: Scaling = 1.0
    pre_configured_device_memory: Mib = 0
    """MiB of a card whose driver cannot tell (GB10)."""
    enable_numa_topology: bool = False
    gpu_core_policy: CorePolicy = msgspec.field(name="gpuCorePolicy", default="default")
    lib_cuda_log_level: Annotated[int, Meta(ge=0, le=4)] = 1
    """0 error, 1 warn, 3 info, 4 debug."""
    runtime_class_name: str = ""
    disable_core_limit: bool = False
    allow_disable_control: bool = False
    """Whether a pod may turn its limits off with CUDA_DISABLE_CONTROL=true (not in HAMi, which always lets it)."""
    mig_profile_allowlist: list[MigAllowlist] = []


class DeviceConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """device-config.yaml. A family whose section is missing has its defaults."""

    nvidia: NvidiaConfig = NvidiaConfig()


class FilterDevices(Struct, frozen=True, forbid_unknown_fields=True):
    """Cards to leave out, by uuid or by index."""

    uuid: list[str] = []
    index: list[Annotated[int, Meta(ge=0)]] = []


class NodeOverride(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of config.json's ``nodeconfig``; a key that is absent keeps the cluster's value."""

    name: str
    operatingmode: OperatingMode | None = None
    devicememoryscaling: Scaling | None = None
    devicecorescaling: Scaling | None = None
    devicesplitcount: Annotated[int, Meta(ge=1)] | None = None
    preconfigureddevicememory: Mib | None = None
    libcudaloglevel: str | None = None
    enablenumatopology: bool | None = None
    migstrategy: Literal["none", "single", "mixed"] | None = None
    filterdevices: FilterDevices | None = None
    enablegetpreferredallocation: bool | None = None


class NodeOverrides(Struct, frozen=True, forbid_unknown_fields=True):
    """config.json as a whole."""

    nodeconfig: list[NodeOverride] = []
