"""kubelet's protocol: our .proto files, what is generated from them, and the bytes on the wire."""

import importlib.util
import sys
from pathlib import Path

import pytest

from hami.wire.proto import deviceplugin_pb2 as plugin
from hami.wire.proto import podresources_pb2 as resources
from hami.wire.proto import services

ROOT = Path(__file__).resolve().parents[3]


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_code_is_what_the_proto_files_give(tmp_path):
    pytest.importorskip("grpc_tools")
    made = tool("proto").generate(tmp_path)
    assert {path.name for path in made} == {
        "deviceplugin_pb2.py",
        "deviceplugin_pb2.pyi",
        "podresources_pb2.py",
        "podresources_pb2.pyi",
    }
    for path in made:
        assert (tmp_path / path).read_text() == (ROOT / "src" / path).read_text(), f"{path}: run tools/proto.py"


def test_generated_files_name_their_generator():
    for path in (ROOT / "src/hami/wire/proto").glob("*_pb2.py*"):
        assert "DO NOT EDIT" in path.read_text()[:200], path


def test_messages_have_the_field_numbers_of_the_public_api():
    # tag = number << 3 | wire type 2; the bytes a Go kubelet writes for the same values
    register = plugin.RegisterRequest(version="v1beta1", endpoint="e", resource_name="r")
    register.options.pre_start_required = True
    register.options.get_preferred_allocation_available = True
    assert register.SerializeToString() == b"\x0a\x07v1beta1\x12\x01e\x1a\x01r\x22\x04\x08\x01\x10\x01"

    device = plugin.Device(ID="a", health="Healthy", topology=plugin.TopologyInfo(nodes=[plugin.NUMANode(ID=1)]))
    assert device.SerializeToString() == b"\x0a\x01a\x12\x07Healthy\x1a\x04\x0a\x02\x08\x01"

    asked = plugin.ContainerPreferredAllocationRequest(
        available_deviceIDs=["a"], must_include_deviceIDs=["b"], allocation_size=2
    )
    assert asked.SerializeToString() == b"\x0a\x01a\x12\x01b\x18\x02"

    answer = plugin.ContainerAllocateResponse(
        envs={"k": "v"},
        mounts=[plugin.Mount(container_path="c", host_path="h", read_only=True)],
        devices=[plugin.DeviceSpec(container_path="c", host_path="h", permissions="rw")],
        annotations={"k": "v"},
        cdi_devices=[plugin.CDIDevice(name="n")],
    )
    assert answer.SerializeToString() == (
        b"\x0a\x06\x0a\x01k\x12\x01v"
        b"\x12\x08\x0a\x01c\x12\x01h\x18\x01"
        b"\x1a\x0a\x0a\x01c\x12\x01h\x1a\x02rw"
        b"\x22\x06\x0a\x01k\x12\x01v"
        b"\x2a\x03\x0a\x01n"
    )

    held = resources.PodResources(
        name="p",
        namespace="n",
        containers=[
            resources.ContainerResources(
                name="c", devices=[resources.ContainerDevices(resource_name="r", device_ids=["a"])]
            )
        ],
    )
    assert held.SerializeToString() == b"\x0a\x01p\x12\x01n\x1a\x0b\x0a\x01c\x12\x06\x0a\x01r\x12\x01a"


def test_fields_of_newer_kubelets_are_skipped():
    # cpu_ids = 3, memory = 4, dynamic_resources = 5 of ContainerResources, which we leave out
    container = resources.ContainerResources.FromString(b"\x0a\x01c\x1a\x02\x01\x02\x22\x02\x0a\x00\x2a\x02\x12\x00")
    assert container.name == "c"


def test_call_paths_are_those_kubelet_dials():
    assert services.ALLOCATE.path == "/v1beta1.DevicePlugin/Allocate"
    assert services.REGISTER.path == "/v1beta1.Registration/Register"
    assert services.LIST_POD_RESOURCES.path == "/v1.PodResourcesLister/List"


def test_wire_needs_no_grpc():
    import subprocess

    code = "import sys, hami.wire.proto.services; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
