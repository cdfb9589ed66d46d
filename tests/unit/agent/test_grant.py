"""What a container is given, form by form: HAMi's names, NVIDIA's strategies."""

import platform

import pytest
from msgspec.structs import replace

from hami.agent import cdi
from hami.agent.bound import Share
from hami.agent.grant import CONTROL_NODES, Host, build, fixed_part, key_of
from hami.agent.grants.answer import allocation_of, fixed_part_of, response
from hami.agent.grants.policy import needs_policy, policy_of
from hami.agent.settings import Settings
from hami.config.schema import NvidiaConfig
from hami.model.ask import ContainerKind, PodRef
from hami.model.ids import PodUid
from hami.vendors.nvidia.files import DriverFiles, HostFile
from hami.wire.policy import CardLimit, CorePolicy

from .conftest import ask, card, one, uuid

POD = PodRef("default", "a", PodUid("uid-1"))
CARDS = tuple(card(index) for index in range(4))
IDS = (f"{uuid(0)}-0",)


def host(config=None, **settings) -> Host:
    return Host(
        settings=Settings(node_name="n", **settings),
        read_config=lambda: config or NvidiaConfig(),
        library="/usr/local/vgpu/libvgpu.so.1",
        minor=lambda card_id: int(card_id[-2:]) + 4,
    )


def share(slices, **changes) -> Share:
    spec, _ = ask(**changes)
    return Share(spec, ContainerKind.APP, tuple(slices))


def grant(slices, on=None, cards=CARDS, **changes):
    return build(POD, share(slices, **changes), IDS, key="k" * 16, cards=cards, host=on or host())


def mounts(made):
    return {one.container_path: (one.host_path, one.read_only) for one in made.mounts}


def test_a_slice_gets_hamis_environment_and_the_library():
    made = grant(one(2, 3000, 30))
    assert made.env == {
        "NVIDIA_VISIBLE_DEVICES": uuid(2),
        "CUDA_DEVICE_MEMORY_LIMIT_0": "3000m",
        "CUDA_DEVICE_SM_LIMIT": "30",
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": "/usr/local/vgpu/ledger",
        "LIBCUDA_LOG_LEVEL": "1",
    }
    folder = f"/usr/local/vgpu/allocations/{'k' * 16}"
    assert mounts(made) == {
        "/usr/local/vgpu/libvgpu.so": ("/usr/local/vgpu/libvgpu.so.1", True),
        "/usr/local/vgpu/policy": (f"{folder}/policy", True),
        "/usr/local/vgpu/ledger": (f"{folder}/ledger", False),
        "/usr/local/vgpu/broker": (f"{folder}/broker", True),
        "/etc/ld.so.preload": ("/usr/local/vgpu/ld.so.preload", True),
    }


def test_without_a_broker_there_is_no_word_of_one():
    made = grant(one(2), host(broker=False))
    assert "/usr/local/vgpu/broker" not in mounts(made)
    assert policy_of(made, share(one(2)), CARDS, host()).broker is None
    assert policy_of(grant(one(2)), share(one(2)), CARDS, host()).broker == "/usr/local/vgpu/broker/sock"


def test_limits_stand_in_the_order_of_the_visible_cards_which_is_by_index():
    made = grant([*one(3, 300, 30), *one(1, 100, 10)])
    assert made.env["NVIDIA_VISIBLE_DEVICES"] == f"{uuid(1)},{uuid(3)}"
    assert (made.env["CUDA_DEVICE_MEMORY_LIMIT_0"], made.env["CUDA_DEVICE_MEMORY_LIMIT_1"]) == ("100m", "300m")
    assert made.env["CUDA_DEVICE_SM_LIMIT"] == made.env["CUDA_DEVICE_SM_LIMIT_0"] == "10"
    assert made.env["CUDA_DEVICE_SM_LIMIT_1"] == "30"


def test_oversubscription_log_level_and_core_policy_come_from_the_configuration():
    config = NvidiaConfig(device_memory_scaling=2, lib_cuda_log_level=3, disable_core_limit=True)
    env = grant(one(1), host(config)).env
    assert env["CUDA_OVERSUBSCRIBE"] == "true"
    assert env["LIBCUDA_LOG_LEVEL"] == "3"
    assert env["GPU_CORE_UTILIZATION_POLICY"] == "disable"


def test_whole_cards_get_no_library():
    made = grant([*one(0, 40960, 100), *one(1, 40960, 100)])
    assert made.env == {"NVIDIA_VISIBLE_DEVICES": f"{uuid(0)},{uuid(1)}"}
    assert made.mounts == ()
    assert not needs_policy(made)


@pytest.mark.parametrize(
    ("slices", "config"),
    [
        (one(0, 40960, 99), NvidiaConfig()),
        (one(0, 40959, 100), NvidiaConfig()),
        ([*one(0, 40960, 100), *one(1, 1000, 100)], NvidiaConfig()),
        (one(0, 40960, 100), NvidiaConfig(device_memory_scaling=2)),
    ],
)
def test_less_than_whole_cards_get_the_library(slices, config):
    assert needs_policy(grant(slices, host(config)))


def test_control_is_turned_off_only_where_the_administrator_allows_it():
    env = [("CUDA_DISABLE_CONTROL", "true")]
    allowed = host(NvidiaConfig(allow_disable_control=True))
    assert "/etc/ld.so.preload" in mounts(grant(one(1), env=env))
    assert "/etc/ld.so.preload" not in mounts(grant(one(1), allowed, env=env))
    assert "/etc/ld.so.preload" in mounts(grant(one(1), allowed, env=[("CUDA_DISABLE_CONTROL", "yes")]))
    assert "/etc/ld.so.preload" in mounts(grant(one(1), allowed))


def test_volume_mounts_name_the_cards_by_mounts():
    made = grant(one(2), host(device_list_strategy=("volume-mounts",)))
    assert made.env["NVIDIA_VISIBLE_DEVICES"] == "/var/run/nvidia-container-devices"
    assert mounts(made)[f"/var/run/nvidia-container-devices/{uuid(2)}"] == ("/dev/null", True)


def test_cdi_names_are_nvidias():
    name = f"k8s.device-plugin.nvidia.com/gpu={uuid(2)}"
    by_cri = grant(one(2), host(device_list_strategy=("cdi-cri",), gds_enabled=True))
    assert by_cri.cdi == (name, "k8s.device-plugin.nvidia.com/gds=all")
    assert "NVIDIA_VISIBLE_DEVICES" not in by_cri.env
    by_annotation = grant(one(2), host(device_list_strategy=("cdi-annotations",)))
    assert by_annotation.annotations[f"cdi.k8s.io/nvidia-device-plugin_{'k' * 16}"] == name
    assert by_annotation.cdi == ()


def test_device_nodes_are_those_of_the_cards():
    made = grant([*one(3), *one(1)], host(pass_device_specs=True, dev_root="/run/nvidia/driver"))
    assert [node.container_path for node in made.devices] == [
        *(f"/dev/{name}" for name in CONTROL_NODES),
        "/dev/nvidia5",
        "/dev/nvidia7",
    ]
    assert made.devices[-1].host_path == "/run/nvidia/driver/dev/nvidia7"
    assert {node.permissions for node in made.devices} == {"rw"}


def test_flags_for_other_hardware_are_passed_on():
    env = grant(one(1), host(gdrcopy_enabled=True, mofed_enabled=True)).env
    assert env["NVIDIA_GDRCOPY"] == env["NVIDIA_MOFED"] == "enabled"
    assert "NVIDIA_GDS" not in env


def test_the_same_ask_has_the_same_name_and_no_two_asks_share_one():
    assert key_of(POD, "main", ("a", "b")) == key_of(POD, "main", ("a", "b"))
    others = {
        key_of(POD, "main", ("a", "b")),
        key_of(POD, "side", ("a", "b")),
        key_of(POD, "main", ("a",)),
        key_of(replace(POD, uid=PodUid("uid-2")), "main", ("a", "b")),
    }
    assert len(others) == 4


def test_an_answer_can_be_read_back_from_what_kubelet_keeps():
    every = host(device_list_strategy=("envvar", "cdi-cri", "cdi-annotations"), pass_device_specs=True)
    made = grant(one(2), every)
    kept = response(made).SerializeToString()
    assert fixed_part_of(response(made)) == fixed_part(made)
    assert allocation_of(kept) == "k" * 16
    assert allocation_of(b"\xff\xff") is None


def test_the_policy_finds_limits_by_card_and_takes_the_priority_from_the_resource():
    made = grant([*one(3, 300, 30), *one(1, 40960, 50)])
    spec, _ = ask(priority=0, env=[("CUDA_TASK_PRIORITY", "1")])
    forced = host(NvidiaConfig(gpu_core_policy="force"))
    policy = policy_of(made, Share(spec, ContainerKind.APP, made.slices), CARDS, forced)
    assert policy.container == "uid-1/main"
    assert policy.cards == (CardLimit(uuid(1), None, 50), CardLimit(uuid(3), 300, 30))
    assert policy.core_policy is CorePolicy.FORCE
    assert policy.priority == 0
    disabled = policy_of(made, share(one(1)), CARDS, host(NvidiaConfig(disable_core_limit=True)))
    assert (disabled.core_policy, disabled.priority) == (CorePolicy.DISABLE, 1)


def test_entry_points_that_the_library_does_not_know_are_denied_where_the_agent_is_told_so():
    assert not policy_of(grant(one(1)), share(one(1)), CARDS, host()).strict
    assert policy_of(grant(one(1)), share(one(1)), CARDS, host(strict=True)).strict


def test_the_cdi_spec_has_every_card_and_only_nodes_that_are_there(tmp_path):
    import json

    text = cdi.spec(CARDS[:2], lambda card_id: 7 if card_id == uuid(0) else None, lambda name: name == "nvidiactl")
    path = cdi.write(str(tmp_path / "cdi"), text)
    read = json.loads(path.read_text())
    assert path.name == "k8s.device-plugin.nvidia.com-gpu.json"
    assert read["kind"] == "k8s.device-plugin.nvidia.com/gpu"
    assert [device["name"] for device in read["devices"]] == [uuid(0), uuid(1)]
    assert read["devices"][0]["containerEdits"]["deviceNodes"] == [{"path": "/dev/nvidia7", "hostPath": "/dev/nvidia7"}]
    assert read["devices"][1]["containerEdits"]["deviceNodes"] == []
    assert [node["path"] for node in read["containerEdits"]["deviceNodes"]] == ["/dev/nvidiactl"]


def test_the_cdi_spec_brings_the_driver_to_where_every_loader_looks():
    import json

    library = HostFile("libcuda.so.1", "/run/nvidia/driver/usr/lib64/libcuda.so.580")
    driver = DriverFiles("580", (library,), (HostFile("nvidia-smi", "/opt/nvidia-smi"),))
    edits = json.loads(cdi.spec(CARDS[:1], lambda _: 0, lambda _: True, driver=driver))["containerEdits"]
    assert {(each["containerPath"], each["hostPath"]) for each in edits["mounts"]} == {
        (f"/usr/lib/{platform.machine()}-linux-gnu/libcuda.so.1", library.host_path),
        ("/usr/lib64/libcuda.so.1", library.host_path),
        ("/usr/bin/nvidia-smi", "/opt/nvidia-smi"),
    }
    assert all("ro" in each["options"] for each in edits["mounts"])
    assert "hooks" not in edits
