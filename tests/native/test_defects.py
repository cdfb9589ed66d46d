"""Faults known of other libraries of this kind, each of which must not be ours, and the variables of hand use.

`docs/reference/libvgpu-proof.md` lists all of them, those that other files test included.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hami.wire.policy import CardLimit, LibraryPolicy, encode

from .conftest import NATIVE, Container, Tools, kept
from .test_vgpu import policy

CONTEXT_MIB = 480
"""Of the simulated driver."""


def test_frees_of_nothing_get_the_drivers_own_answer_and_change_nothing(container: Container) -> None:
    got = container.probe("defects", CUDA_DEVICE_MEMORY_LIMIT="4g")
    assert (got["freed"], got["freed_twice"], got["never_given"]) == (0, 1, 1)


def test_a_second_reference_to_a_context_takes_nothing_and_gives_nothing_back(container: Container) -> None:
    got = container.probe("defects", CUDA_DEVICE_MEMORY_LIMIT="4g")
    assert got["one_reference"] == got["two"] == got["one_again"] == 4096 - CONTEXT_MIB


def test_pools_and_modules_are_charged_to_the_card_they_are_on(container: Container) -> None:
    """By uuid: the policy names the cards in another order than the driver does."""
    cards = (CardLimit(container.bench.uuid(1), 2000), CardLimit(container.bench.uuid(0), 4000))
    with policy(container, encode(LibraryPolicy(container="a", cards=cards, ledger=str(container.ledger)))):
        got = container.probe("defects")
    assert got["one_reference"] == 4000 - CONTEXT_MIB
    assert got["second"] == 2000 - CONTEXT_MIB
    assert got["pooled"] == 2000 - CONTEXT_MIB - 256
    assert got["loaded"] == 2000 - CONTEXT_MIB - 256 - 130
    assert got["first_changed"] == 0


def test_a_hook_without_a_driver_behind_it_answers_instead_of_calling_nothing(tools: Tools) -> None:
    code = "import ctypes; print(ctypes.CDLL(None).cuMemAlloc_v2(None, 4096), ctypes.CDLL(None).cuInit(0))"
    env = {"LD_PRELOAD": str(tools.library)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout.split()) == (0, ["801", "3"])


OLD = "int cuMemAlloc(void) { return 55; }\nint cuCtxCreate_v2(void) { return 56; }\nint cuInit(void) { return 0; }\n"


def test_a_driver_without_a_version_of_a_function_is_not_asked_for_another_one(tools: Tools, tmp_path: Path) -> None:
    """Whose arguments are others."""
    (tmp_path / "old.c").write_text(OLD)
    made = ["-o", tmp_path / "libcuda.so.1", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "old.c", *made], check=True)
    code = "import ctypes; cuda = ctypes.CDLL('libcuda.so.1'); ours = ctypes.CDLL(None); print(cuda.cuInit(0), "
    code += "ours.cuMemAlloc_v2(None, 4096), ours.cuCtxCreate_v4(None, None, 0, 0), ours.cuCtxCreate_v2(None, 0, 0))"
    env = {"LD_PRELOAD": str(tools.library), "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["0", "801", "801", "56"]


def test_a_ledger_of_another_version_is_refused_and_not_read_with_the_wrong_layout(container: Container) -> None:
    assert container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g")["total_mib"] == 4096
    with container.ledger.open("r+b") as file:
        head = file.read(8)
        file.seek(4)
        file.write(bytes([head[4] + 1]))
    got = container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g")
    assert (got["error"], got["code"]) == ("cuInit", 802)


@pytest.mark.realtime
def test_the_first_second_is_held_as_all_others(container: Container) -> None:
    limit = {"CUDA_DEVICE_SM_LIMIT": "30", "GPU_CORE_UTILIZATION_POLICY": "force", "PROBE_ROUNDS_A_NS": "1"}
    for ns in (100_000, 5_000_000):
        tenths = container.probe("run", "spin", 2, ns, **limit)["tenths"]
        assert isinstance(tenths, list)
        assert sum(tenths[:10]) * ns / 1e7 <= 40


@pytest.mark.realtime
def test_each_process_is_held_to_its_own_variables_and_not_to_those_of_the_first(container: Container) -> None:
    """Of memory, and of time: 800 launches of 1 ms a second, where the first one's limit leaves 100."""
    force = {"GPU_CORE_UTILIZATION_POLICY": "force", "PROBE_ROUNDS_A_NS": "1"}
    first = {"CUDA_DEVICE_MEMORY_LIMIT": "8g", "CUDA_DEVICE_SM_LIMIT": "10", **force}
    with container.start("probe", "hold", 256, 60, **first) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        total = container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g")["total_mib"]
        rate = container.probe("run", "spin", 1.5, 1_000_000, CUDA_DEVICE_SM_LIMIT="80", **force)["rate"]
        holder.kill()
    assert total == 4096
    assert isinstance(rate, float)
    assert 200 < rate < 880


LINKED = """
#include <stdio.h>
#include "hami/cuda_abi.h"
CUresult cuInit(unsigned int), cuDeviceGet(CUdevice *, int), cuDevicePrimaryCtxRetain(CUcontext *, CUdevice);
CUresult cuCtxSetCurrent(CUcontext), cuMemAlloc_v2(CUdeviceptr *, size_t);
int main(void) {
    CUdevice d; CUcontext c; CUdeviceptr p; int taken = 0;
    if (cuInit(0) || cuDeviceGet(&d, 0) || cuDevicePrimaryCtxRetain(&c, d) || cuCtxSetCurrent(c)) return 1;
    while (cuMemAlloc_v2(&p, 256 << 20) == 0) taken++;
    printf("%d", taken * 256);
    return 0;
}
"""


def test_a_program_linked_against_the_driver_is_held(container: Container, tmp_path: Path) -> None:
    source, program = tmp_path / "linked.c", tmp_path / "linked"
    source.write_text(LINKED)
    sim = container.tools.folder / "sim"
    link = [f"-I{NATIVE / 'include'}", source, "-o", program, f"-L{sim}", "-l:libcuda.so.1"]
    subprocess.run(["gcc", "-std=gnu11", *link], check=True)
    for limits, taken in (({"CUDA_DEVICE_MEMORY_LIMIT": "4g"}, 3584), ({"LD_PRELOAD": ""}, 40_000)):
        env = container.environment(**limits)
        done = subprocess.run([program], env=env, capture_output=True, text=True, check=True, timeout=60)
        assert int(done.stdout) == taken or (taken == 40_000 and int(done.stdout) > 30_000)


FUTURE = "int cuMemAllocFromTheFuture(void) { return 77; }\nint cuInit(void) { return 0; }\n"
BY_NEXT = """
#include <dlfcn.h>
#include <stdio.h>
int cuInit(unsigned int);
int main(int words, char **word) {
    int (*often)(unsigned int) = cuInit;
    void *handle = words > 1 ? RTLD_NEXT : dlopen("libcuda.so.1", RTLD_NOW);
    void *found = dlsym(handle, "cuMemAllocFromTheFuture");
    printf("%s\\n", found != NULL ? "found" : dlerror());
    return often == 0;
}
"""


@pytest.mark.parametrize("words", [(), ("next",)])
def test_where_strict_is_set_an_entry_point_that_the_library_does_not_know_is_denied(
    container: Container, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Before cuInit, too; and who prints why has something to print."""
    (tmp_path / "new.c").write_text(FUTURE)
    (tmp_path / "asks.c").write_text(BY_NEXT)
    driver, program = tmp_path / "libcuda.so.1", tmp_path / "asks"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", tmp_path / "new.c", "-o", driver, "-Wl,-soname,libcuda.so.1"], check=True
    )
    link = ["-D_GNU_SOURCE", "-o", program, f"-L{tmp_path}", "-l:libcuda.so.1", "-ldl"]
    subprocess.run(["gcc", tmp_path / "asks.c", *link], check=True)
    cards = (CardLimit(container.bench.uuid(0), 4000),)
    for strict, says in ((False, "found"), (True, "denied by libvgpu")):
        told = LibraryPolicy(container="a", cards=cards, ledger=str(container.ledger), strict=strict)
        with policy(container, encode(told)):
            env = container.environment(LD_LIBRARY_PATH=str(tmp_path))
            done = subprocess.run([program, *words], env=env, capture_output=True, text=True, check=False, timeout=30)
        assert says in done.stdout


FUTURE_BY_ADDRESS = """
int cuMemAllocFromTheFuture(void) { return 77; }
int cuInit(void) { return 0; }
int cuGetProcAddress(const char *name, void **out) { *out = (void *)cuMemAllocFromTheFuture; return name == 0; }
int cuGetProcAddress_v2(const char *name, void **out, int version, unsigned long long flags, int *status)
{ *status = 0, *out = (void *)cuMemAllocFromTheFuture; return name == 0 || version == 0 || flags != 0; }
"""
FUTURE_NVML = "int nvmlMemoryOfTheFuture(void) { return 77; }\nint nvmlInit_v2(void) { return 0; }\n"
ASKS = """
import ctypes
from ctypes import byref
cuda, out, status = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_int(7)
name, flags = b"cuMemAllocFromTheFuture", ctypes.c_uint64(0)
print(cuda.cuGetProcAddress_v2(name, byref(out), 13000, flags, byref(status)), status.value, bool(out), end=" ")
print(cuda.cuGetProcAddress(name, byref(out), 13000, flags), bool(out), end=" ")
print(hasattr(ctypes.CDLL("libnvidia-ml.so.1"), "nvmlMemoryOfTheFuture"))
"""


def test_where_strict_is_set_what_is_unknown_is_denied_by_cugetprocaddress_and_of_nvml_too(
    container: Container, tmp_path: Path
) -> None:
    for name, code in (("libcuda.so.1", FUTURE_BY_ADDRESS), ("libnvidia-ml.so.1", FUTURE_NVML)):
        (tmp_path / "new.c").write_text(code)
        made = ["-o", tmp_path / name, f"-Wl,-soname,{name}"]
        subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "new.c", *made], check=True)
    cards = (CardLimit(container.bench.uuid(0), 4000),)
    for strict, says in ((False, "0 0 True 0 True True"), (True, "500 1 False 500 False False")):
        told = LibraryPolicy(container="a", cards=cards, ledger=str(container.ledger), strict=strict)
        with policy(container, encode(told)):
            env = container.environment(LD_LIBRARY_PATH=str(tmp_path))
            command = [sys.executable, "-c", ASKS]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=30)
        assert done.stdout.strip() == says


BINDS = """
int cuMemAlloc_v2(unsigned long long *, unsigned long);
int takes(void)
{
    unsigned long long at;
    int taken = 0;
    while (taken < 60 && cuMemAlloc_v2(&at, 256ul << 20) == 0) taken++;
    return taken * 256;
}
"""
OPENS_DEEP = """
import ctypes, os
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
cuda.cuInit(0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), cuda.cuCtxSetCurrent(context)
print(ctypes.CDLL("libtakes.so", os.RTLD_NOW | os.RTLD_DEEPBIND).takes())
"""


def test_a_library_that_is_opened_with_a_scope_of_its_own_is_held(container: Container, tmp_path: Path) -> None:
    """RTLD_DEEPBIND: its calls are bound to the driver that it is linked to before anything that was there earlier."""
    (tmp_path / "takes.c").write_text(BINDS)
    sim = container.tools.folder / "sim"
    link = ["-o", tmp_path / "libtakes.so", f"-L{sim}", "-l:libcuda.so.1"]
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "takes.c", *link], check=True)
    paths = {"LD_LIBRARY_PATH": f"{sim}:{tmp_path}", "CUDA_DEVICE_MEMORY_LIMIT": "4g"}
    for preload, taken in (({}, 3584), ({"LD_PRELOAD": ""}, 60 * 256)):
        command = [sys.executable, "-c", OPENS_DEEP]
        env = container.environment(**paths, **preload)
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
        assert int(done.stdout) == taken


# ---- variables ----


def shown(container: Container, **variables: str) -> list[tuple[int, int]]:
    """Bytes and percent that the library says it took, by card."""
    said = str(container.probe("info", LIBCUDA_LOG_LEVEL="3", **variables)["stderr"])
    found = re.findall(r"decision: card \d GPU-[0-9a-f-]*: memory (\d+) bytes, compute (\d+) %", said)
    return [(int(memory), int(percent)) for memory, percent in found]


G, ALL = 1 << 30, (1 << 63) - 1
MEMORY, CORES = "CUDA_DEVICE_MEMORY_LIMIT", "CUDA_DEVICE_SM_LIMIT"
SIZES = ("4g", "4G", "4GiB", "4gb", "4GB", "4096m", "4096MiB", "4194304k", "4194304KB", "4294967296", "4294967296b")
TAKEN = {
    **{f"{MEMORY}={size}": [(4 * G, 100)] * 2 for size in SIZES},
    f"{MEMORY}=1t": [(1024 * G, 100)] * 2,
    f"{MEMORY}=4g {MEMORY}_0=2048m": [(2 * G, 100), (4 * G, 100)],
    f"{MEMORY}=4g {MEMORY}_1=0": [(4 * G, 100), (ALL, 100)],
    f"{MEMORY}_1=4g": [(ALL, 100), (4 * G, 100)],
    f"{MEMORY}=4g {MEMORY}_1=": [(4 * G, 100)] * 2,
    f"{CORES}=30": [(ALL, 30)] * 2,
    f"{CORES}=30 {CORES}_1=0": [(ALL, 30), (ALL, 100)],
    f"{CORES}=30 {CORES}_0=100": [(ALL, 100), (ALL, 30)],
    f"{CORES}_1=7": [(ALL, 100), (ALL, 7)],
    f"{MEMORY}=4g {CORES}=": [(4 * G, 100)] * 2,
    **{f"{MEMORY}=4g CUDA_TASK_PRIORITY={value}": [(4 * G, 100)] * 2 for value in ("", "0", "1")},
    **{
        f"{MEMORY}=4g GPU_CORE_UTILIZATION_POLICY={value}": [(4 * G, 100)] * 2
        for value in ("", "default", "force", "FORCE", "Force", "disable", "DISABLE")
    },
    **{f"{MEMORY}=4g CUDA_DISABLE_CONTROL={value}": [(4 * G, 100)] * 2 for value in ("", "0", "false", "no", "2")},
}
STEPS_ASIDE = (
    *(f"{MEMORY}=4g CUDA_DISABLE_CONTROL={value}" for value in ("1", "t", "T", "true", "TRUE", "True")),
    f"{MEMORY}=0",
    f"{MEMORY}=0m {CORES}=0",
    f"{MEMORY}= {CORES}=100",
    "CUDA_TASK_PRIORITY=0 GPU_CORE_UTILIZATION_POLICY=force",
)
REFUSED = (
    *(f"{MEMORY}={size}" for size in ("-1", "-1g", "1.5g", "0x10", "4_g", "g", "4gg", "4i", "99999999999999g", "many")),
    f"{MEMORY}=4g {MEMORY}_1=4GiBs",
    *(f"{MEMORY}=4g {CORES}={value}" for value in ("101", "-1", "50m", "30%", "1e1", "half")),
    f"{CORES}=30 {CORES}_15=200",
    *(f"{MEMORY}=4g CUDA_TASK_PRIORITY={value}" for value in ("2", "-1", "high")),
    *(f"{MEMORY}=4g GPU_CORE_UTILIZATION_POLICY={value}" for value in ("on", "forced", "1")),
)


def variables(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


@pytest.mark.parametrize("text", TAKEN)
def test_the_variables_of_limits_are_those_of_hami_core(container: Container, text: str) -> None:
    """Names, units and suffixes; the last word for a card is its own, as the program counts cards."""
    assert shown(container, **variables(text)) == TAKEN[text]


@pytest.mark.parametrize("text", STEPS_ASIDE)
def test_where_variables_set_no_limit_the_library_steps_aside(container: Container, text: str) -> None:
    assert shown(container, **variables(text)) == []
    whole = container.probe("info", LD_PRELOAD="")["total_mib"]
    assert container.probe("info", **variables(text))["total_mib"] == whole


@pytest.mark.parametrize("text", REFUSED)
def test_a_variable_that_says_nonsense_is_named_and_refused(container: Container, text: str) -> None:
    """HAMI-core takes 4 bytes for 4GiB, no limit for 50m, for what is too large, and for what is no number."""
    got = container.probe("info", **variables(text))
    assert (got["error"], got["code"]) == ("cuInit", 802)
    assert text.rsplit(maxsplit=1)[-1] in str(got["stderr"])


@pytest.mark.realtime
def test_the_variable_of_the_policy_of_time_decides(container: Container) -> None:
    rates = {}
    for policy_of_time in ("force", "FORCE", "disable", "default"):
        limit = {"CUDA_DEVICE_SM_LIMIT": "20", "GPU_CORE_UTILIZATION_POLICY": policy_of_time}
        told = container.probe("run", "spin", 1.5, 1_000_000, PROBE_ROUNDS_A_NS="1", **limit)
        free = policy_of_time in {"disable", "default"}
        rates[policy_of_time] = float(str(told["rate"])) + (10 * kept(told, 1.5) if free else 0)
    assert max(rates["force"], rates["FORCE"]) < 300
    assert min(rates["disable"], rates["default"]) > 400  # the last because it is alone on the card


def test_the_shared_cache_is_where_its_variable_says(container: Container, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g", CUDA_DEVICE_MEMORY_SHARED_CACHE=str(place))
    assert place.exists()


def test_the_switch_turns_it_off_by_hand_and_nothing_is_said_unless_asked(container: Container) -> None:
    off = container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g", CUDA_DISABLE_CONTROL="true")
    assert off["total_mib"] > 4096  # type: ignore[operator]
    assert off["stderr"] == ""
    for level in ("0", "5", "-1", "loud", ""):  # which is none is as 0
        assert container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g", LIBCUDA_LOG_LEVEL=level)["stderr"] == ""
    assert container.probe("info", CUDA_DEVICE_MEMORY_LIMIT="4g", LIBCUDA_LOG_LEVEL="4")["stderr"] != ""
