"""The simulated library against nvidia-ml-py's idea of NVML: exports, layouts, threads, several processes."""

import contextlib
import ctypes
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from hami.native import SIM_NVML, library
from hami.sim.cards import Bench, Process, Rack, SimCard
from hami.sim.fixtures import bench, nvml
from hami.vendors.nvidia.driver import Driver
from hami.vendors.nvidia.nvml import NvmlFault

__all__ = ["bench", "nvml"]

ABI = Path(__file__).parents[2] / "native/sim-nvml/nvml_abi.h"
LAYOUTS = {
    "nvmlPciInfo_t": pynvml.nvmlPciInfo_t,
    "nvmlPciInfo_v2_t": pynvml.nvmlPciInfo_v2_t,
    "nvmlMemory_t": pynvml.c_nvmlMemory_t,
    "nvmlMemory_v2_t": pynvml.c_nvmlMemory_v2_t,
    "nvmlBAR1Memory_t": pynvml.c_nvmlBAR1Memory_t,
    "nvmlUtilization_t": pynvml.c_nvmlUtilization_t,
    "nvmlProcessInfo_t": pynvml.c_nvmlProcessInfo_v3_t,
    "nvmlProcessUtilizationSample_t": pynvml.c_nvmlProcessUtilizationSample_t,
    "nvmlEventData_t": pynvml.c_nvmlEventData_t,
    "nvmlFieldValue_t": pynvml.c_nvmlFieldValue_t,
    "nvmlGpuInstancePlacement_t": pynvml.c_nvmlGpuInstancePlacement_t,
    "nvmlGpuInstanceProfileInfo_t": pynvml.c_nvmlGpuInstanceProfileInfo_t,
    "nvmlGpuInstanceProfileInfo_v2_t": pynvml.c_nvmlGpuInstanceProfileInfo_v2_t,
    "nvmlGpuInstanceInfo_t": pynvml.c_nvmlGpuInstanceInfo_t,
    "nvmlComputeInstanceProfileInfo_t": pynvml.c_nvmlComputeInstanceProfileInfo_t,
    "nvmlComputeInstanceInfo_t": pynvml.c_nvmlComputeInstanceInfo_t,
    "nvmlDeviceAttributes_t": pynvml.c_nvmlDeviceAttributes,
}


def test_every_struct_has_the_layout_of_nvidia_ml_py(tmp_path: Path) -> None:
    lines = []
    for name, structure in LAYOUTS.items():
        lines.append(f'printf("{name} . %zu\\n", sizeof({name}));')
        for field, *_ in structure._fields_:
            if not field.startswith("reserved"):  # four fields there, an array here
                lines.append(f'printf("{name} {field} %zu\\n", offsetof({name}, {field}));')
    source = tmp_path / "layout.c"
    body = "\n    ".join(lines)
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{ABI}"\nint main(void) {{\n    {body}\n    return 0;\n}}\n'
    )
    subprocess.run([os.environ.get("CC", "cc"), "-o", tmp_path / "layout", source], check=True)
    ours = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout.splitlines()
    theirs = []
    for name, structure in LAYOUTS.items():
        theirs.append(f"{name} . {ctypes.sizeof(structure)}")
        for field, *_ in structure._fields_:
            if not field.startswith("reserved"):
                theirs.append(f"{name} {field} {getattr(structure, field).offset}")
    assert ours == theirs


def test_only_names_of_nvml_are_exported_and_nvidia_ml_py_knows_them() -> None:
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", library(SIM_NVML)], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in listed.splitlines()}
    known = set(re.findall(r"\bnvml[A-Z]\w+", Path(pynvml.__file__).read_text()))
    first_versions = {re.sub(r"_v\d$", "", name) for name in known}
    assert {name for name in exported if not name.startswith("nvml")} == set()
    unused_there = {"nvmlInit_v2", "nvmlDeviceGetPciInfo_v2"}
    assert {name for name in exported if name not in known | first_versions} == unused_there
    assert len(exported) > 90


def test_its_soname_is_the_drivers() -> None:
    dynamic = subprocess.run(["readelf", "-d", library(SIM_NVML)], capture_output=True, text=True, check=True).stdout
    assert "Library soname: [libnvidia-ml.so.1]" in dynamic


def test_the_loader_finds_it_by_the_drivers_name(bench: Bench) -> None:
    program = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByIndex(0)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **bench.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("NVIDIA A100-SXM4-40GB", "")


def test_handles_that_are_none_are_refused(nvml: Driver) -> None:
    for wrong in (ctypes.c_void_p(0), ctypes.c_void_p(8), ctypes.c_void_p(0x7F0000000000)):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            pynvml.nvmlDeviceGetName(wrong)


def test_texts_that_do_not_fit_say_so(nvml: Driver) -> None:
    small = ctypes.create_string_buffer(4)
    fn = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetName")
    assert fn(nvml.device(0), small, 4) == pynvml.NVML_ERROR_INSUFFICIENT_SIZE
    assert small.raw == b"\0\0\0\0"


def test_a_memory_version_it_does_not_know_is_refused(nvml: Driver) -> None:
    with pytest.raises(pynvml.NVMLError_ArgumentVersionMismatch):
        pynvml.nvmlDeviceGetMemoryInfo(nvml.device(0), version=0x01000028)


def test_all_versions_of_the_process_list_agree(bench: Bench, nvml: Driver) -> None:
    bench.run(0, [Process(pid, mem_mib=pid) for pid in range(1, 40)])
    device = nvml.device(0)
    newest = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(device)
    older = pynvml.nvmlDeviceGetComputeRunningProcesses_v2(device)
    assert [process.pid for process in newest] == [process.pid for process in older] == list(range(1, 40))


def test_threads_may_ask_while_the_cards_change(bench: Bench, nvml: Driver) -> None:
    stop = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        device = nvml.device(0)
        while not stop.is_set():
            used = nvml.memory(device).used >> 20
            if used not in range(100):
                wrong.append(used)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for used in range(100):
        bench.change(0, used_mib=used)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_slow_card_does_not_hold_up_another(bench: Bench, nvml: Driver) -> None:
    bench.fail(0, "nvmlDeviceGetName", "success", delay_ms=500)
    slow, quick = nvml.device(0), nvml.device(1)
    answered: list[str] = []
    thread = threading.Thread(target=lambda: answered.append(nvml.name(slow)))
    thread.start()
    assert nvml.name(quick)
    assert answered == []
    thread.join()
    assert len(answered) == 1


# -- MIG: what a later issue builds on ------------------------------------------------------


@pytest.fixture
def device(bench: Bench, nvml: Driver) -> Iterator[object]:
    bench.put(Rack([SimCard(mig="on"), SimCard("T4")]))
    return nvml.device(0)


def create(device: object, profile: int, start: int, size: int) -> object:
    place = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile, ctypes.byref(place))


def instances(device: object, profile: int) -> int:
    found = (pynvml.c_nvmlGpuInstance_t * 8)()
    count = ctypes.c_uint(0)
    pynvml.nvmlDeviceGetGpuInstances(device, profile, found, ctypes.byref(count))
    return count.value


def test_an_instance_is_made_where_it_was_wanted_and_seen_by_all(bench: Bench, device: object) -> None:
    gi = create(device, 14, 4, 2)
    info = pynvml.nvmlGpuInstanceGetInfo(gi)
    assert (info.id, info.profileId, info.placement.start, info.placement.size) == (5, 14, 4, 2)
    ci = pynvml.nvmlGpuInstanceCreateComputeInstance(gi, 1)
    mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0)
    assert pynvml.nvmlDeviceGetName(mig) == "NVIDIA A100-SXM4-40GB MIG 2g.10gb"
    assert pynvml.nvmlDeviceGetGpuInstanceId(mig) == 5
    assert pynvml.nvmlDeviceGetMemoryInfo(mig).total == 9856 << 20
    uuid = pynvml.nvmlDeviceGetUUID(mig)
    program = f"import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetName(n.nvmlDeviceGetHandleByUUID(b'{uuid}')))"
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **bench.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.stdout.strip().endswith("MIG 2g.10gb"), other.stderr
    pynvml.nvmlComputeInstanceDestroy(ci)
    pynvml.nvmlGpuInstanceDestroy(gi)
    assert instances(device, 14) == 0


def test_instances_do_not_overlap_nor_stand_where_none_may(device: object) -> None:
    create(device, 9, 0, 4)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        create(device, 14, 2, 2)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        create(device, 14, 5, 2)
    assert pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(device, 14) == 1
    assert pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(device, 9) == 1
    assert pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(device, 19) == 3  # memory slices 4 to 6: 7 begins none


def test_what_is_in_use_is_not_destroyed(bench: Bench, device: object) -> None:
    gi = create(device, 19, 0, 1)
    ci = pynvml.nvmlGpuInstanceCreateComputeInstance(gi, 0)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlGpuInstanceDestroy(gi)
    bench.run(0, [Process(5, gpu_instance=7, compute_instance=0)])
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlComputeInstanceDestroy(ci)
    bench.run(0, [])
    pynvml.nvmlComputeInstanceDestroy(ci)
    pynvml.nvmlGpuInstanceDestroy(gi)


def test_the_mode_changes_unless_the_card_is_busy(bench: Bench, nvml: Driver) -> None:
    card = nvml.device(0)
    assert pynvml.nvmlDeviceSetMigMode(card, 1) == pynvml.NVML_SUCCESS
    assert pynvml.nvmlDeviceGetMigMode(card) == [1, 1]
    bench.run(1, [Process(5)])
    assert pynvml.nvmlDeviceSetMigMode(nvml.device(1), 1) == pynvml.NVML_ERROR_IN_USE
    assert pynvml.nvmlDeviceGetMigMode(nvml.device(1)) == [0, 1]


def test_a_card_without_mig_says_so(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("T4")]))
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetMigMode(nvml.device(0))


# -- broken descriptions ------------------------------------------------------------------------


JUNK = (b"", b"\0", b"9" * 40, b"-1", b"\n", b" ", b"%s" * 600)


def test_no_description_however_broken_brings_it_down(bench: Bench, nvml: Driver) -> None:
    whole = bench.path.read_bytes()
    chance = random.Random(7)
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(broken))
            broken[at : at + chance.randrange(4)] = chance.choice(
                [b"", b"\0", b"9" * 40, b"-1", b"\n", b" ", b"%s" * 600]
            )
        bench.path.write_bytes(bytes(broken))
        for index in range(nvml.count()):
            with contextlib.suppress(NvmlFault):
                device = nvml.device(index)
                nvml.uuid(device), nvml.memory(device), nvml.gpu_instance_profiles(device), nvml.nvlinks(device)
    bench.put(Rack([SimCard(), SimCard()]))
    assert nvml.count() == 2
