"""A container that has the driver and no NVML: contexts and modules are charged by its word on the whole card.

More may be charged than was taken, never less: the simulated driver has the last word on what its processes hold.
"""

import json
import sys
import time
from subprocess import PIPE, Popen

import pytest

from .conftest import Container
from .test_at_once import CONTEXT_MIB, MODULE_MIB, SLOW, Most, at_once, each_says
from .test_libraries import LIBRARIES
from .test_ways_round import LIMIT_MIB, START, tried
from .test_whole import on_card

SLACK_MIB = 64
TAKES = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
print("ready", flush=True)
sys.stdin.readline()
image = b"data 254"
ways = {
    "context": lambda: cuda.cuCtxCreate_v2(byref(c_void_p()), 0, 0),
    "module": lambda: cuda.cuModuleLoadData(byref(c_void_p()), image),
    "library": lambda: cuda.cuLibraryLoadData(byref(c_void_p()), image, None, None, 0, None, None, 0),
    "linear": lambda: cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(256 * MIB)),
}
kinds = list(ways) if sys.argv[1] == "mixed" else sys.argv[1:]
last = []
while len(last) < len(kinds):
    told = ways[kinds[0]]()
    last = [*last, told] if told else []
    kinds = [*kinds[1:], kinds[0]]
print(*last, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def limit(without_nvml: dict[str, str]) -> dict[str, str]:
    return {"CUDA_DEVICE_MEMORY_LIMIT": f"{LIMIT_MIB}m"} | without_nvml


def taken(container: Container, processes: int, way: str, **env: str) -> tuple[int, list[str]]:
    """MiB on the card while each process of the container has taken what it could, and how each was refused."""
    command = [sys.executable, "-c", START + TAKES, way]
    started = [
        Popen(command, env=container.environment(**env), text=True, stdin=PIPE, stdout=PIPE) for _ in range(processes)
    ]
    said = [process.stdout for process in started if process.stdout is not None]
    assert [each.readline() for each in said] == ["ready\n"] * processes
    for process in started:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    told = [each.readline() for each in said]
    held = on_card(container)
    for process in started:
        process.communicate(timeout=60)
    return held, told


@pytest.mark.parametrize("way", ["context", "module", "library", "linear", "mixed"])
@pytest.mark.parametrize("processes", [1, 2])
def test_whatever_is_taken_ends_at_the_limit(
    container: Container, limit: dict[str, str], way: str, processes: int
) -> None:
    """One alone by less than it takes at once; what two take in the same moment may be charged to both."""
    held, told = taken(container, processes, way, **limit)
    least = LIMIT_MIB - max(CONTEXT_MIB, 256 + SLACK_MIB) if processes == 1 else LIMIT_MIB // 2
    assert least <= held <= LIMIT_MIB + SLACK_MIB
    assert all(set(line.split()) == {"2"} for line in told)


@pytest.mark.parametrize("route", ["module", "library", "mixed"])
def test_a_program_goes_on_after_it_was_refused(container: Container, limit: dict[str, str], route: str) -> None:
    told = container.probe("mem", route, 256, **limit)
    assert (told["refused_with"], told["freed"], told["retaken"]) == (2, 0, 0)
    assert int(str(told["taken_mib"])) <= LIMIT_MIB + SLACK_MIB - CONTEXT_MIB


SMALL = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def one():
    return cuda.cuModuleLoadData(byref(c_void_p()), b"data 2")
count = 0
while count < 4000 and one() == 0:
    count += 1
print(count)
"""


def test_many_small_modules_end_there_too(container: Container, limit: dict[str, str]) -> None:
    """4 MiB each."""
    assert int(tried(container, SMALL, **limit)) in range(880, (LIMIT_MIB + SLACK_MIB - CONTEXT_MIB) // 4 + 1)


BACK = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
before, module, library = used(), c_void_p(), c_void_p()
told = []
assert cuda.cuModuleLoadData(byref(module), b"data 510") == 0
told.append(used() - before)
assert cuda.cuModuleUnload(module) == 0
told.append(used() - before)
assert cuda.cuLibraryLoadData(byref(library), b"data 510", None, None, 0, None, None, 0) == 0
told.append(used() - before)
assert cuda.cuLibraryUnload(library) == 0
told.append(used() - before)
context = c_void_p()
assert cuda.cuCtxCreate_v2(byref(context), 0, 0) == 0
assert cuda.cuModuleLoadData(byref(module), b"data 510") == 0
told.append(used() - before)
assert cuda.cuCtxDestroy_v2(context) == 0
told.append(used() - before)
print(before, *told)
"""


@pytest.mark.parametrize("late", ["at once", "late"])
def test_what_a_module_a_library_and_a_context_were_charged_is_given_back(
    container: Container, limit: dict[str, str], late: str
) -> None:
    """Where libraries load late, this one is loaded at once: what its first kernel takes nobody could count."""
    lazy = {"FAKE_CUDA_LAZY": "1"} if late == "late" else {}
    assert tried(container, BACK, **limit, **lazy) == f"{CONTEXT_MIB} 512 0 512 0 {CONTEXT_MIB + 512} 0"


LATE = """
def one():
    return load(256)[0]
print(take(one), load(256)[0])
"""


def test_libraries_that_load_late_are_held(container: Container, limit: dict[str, str]) -> None:
    assert tried(container, LIBRARIES + LATE, FAKE_CUDA_LAZY="1", **limit) == "3584 2"


def test_a_first_context_that_turns_out_too_large_for_the_slice_is_undone(
    container: Container, without_nvml: dict[str, str]
) -> None:
    """Of a slice of 300 MiB; a context has 480."""
    code = """
cuda, context, active = ctypes.CDLL("libcuda.so.1"), c_void_p(), c_int(7)
assert cuda.cuInit(0) == 0
told = [cuda.cuDevicePrimaryCtxRetain(byref(context), 0), cuda.cuCtxCreate_v2(byref(context), 0, 0)]
assert cuda.cuDevicePrimaryCtxGetState(0, byref(c_int()), byref(active)) == 0
print(*told, active.value)
"""
    assert tried(container, code, **{"CUDA_DEVICE_MEMORY_LIMIT": "300m"} | without_nvml) == "2 2 0"


@pytest.mark.parametrize("way", ["context", "mixed"])
def test_beside_a_stranger_no_less_is_charged_than_is_taken(
    container: Container, limit: dict[str, str], way: str
) -> None:
    """8 GiB of another's, which the driver does not tell from ours: contexts are charged what one takes at most."""
    stranger = {"CUDA_DEVICE_MEMORY_SHARED_CACHE": str(container.ledger.with_name("other"))}
    with container.start("probe", "hold", 8192, 60, **stranger) as other:
        assert other.stdout is not None
        assert json.loads(other.stdout.readline()) == {"held_mib": 8192}
        beside = on_card(container)
        held, _ = taken(container, 1, way, **limit)
        other.kill()
        other.communicate()
    assert LIMIT_MIB - 1400 <= held - beside <= LIMIT_MIB + SLACK_MIB


def test_modules_loaded_at_once_pass_the_limit_by_one_at_most(
    container: Container, without_nvml: dict[str, str]
) -> None:
    """One at a time, so that nobody's is counted as another's too, unless he takes longer than a second."""
    limit_mib = 8 * CONTEXT_MIB + 3 * (MODULE_MIB + 2) + 100
    most = Most(container)
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit_mib}m", "PROBE_BEGIN_WHEN_TOLD": "1", **SLOW, **without_nvml}
    with at_once(container, "module", "text", MODULE_MIB, 250, **held) as started:
        assert each_says(started) == [{"ready": True}] * 8
        for process in started:
            assert process.stdin is not None
            process.stdin.write("now\n")
            process.stdin.flush()
        told = each_says(started, most.look)
    assert most.mib <= limit_mib + MODULE_MIB + 2
    assert [one["loaded"] for one in told].count(0) in (1, 2, 3)


MEANWHILE = """
import threading
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda)
address, module, told = c_uint64(), c_void_p(), []
assert cuda.cuMemAlloc_v2(byref(address), c_size_t(1024 * MIB)) == 0
def load():
    cuda.cuCtxSetCurrent(contexts[0])
    told.append(cuda.cuModuleLoadData(byref(module), b"data 510"))
loading = threading.Thread(target=load)
loading.start()
print("loads", flush=True)
sys.stdin.readline()
assert cuda.cuMemFree_v2(address) == 0
loading.join()
print(*told, used(), flush=True)
"""


def loads_slowly(container: Container, code: str, **env: str) -> "Popen[str]":
    """A program whose module takes its memory, and is ready 2 s later."""
    environment = container.environment(**env, FAKE_CUDA_SLOW_MS="2000")
    program = Popen([sys.executable, "-c", START + code], env=environment, text=True, stdin=PIPE, stdout=PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == "loads\n"
    return program


def until_held(container: Container, mib: int) -> None:
    while on_card(container) < mib:
        time.sleep(0.01)


def test_what_the_container_gives_back_while_a_module_loads_hides_nothing_of_it(
    container: Container, limit: dict[str, str]
) -> None:
    """There is 512 MiB less on the card after the load than before it."""
    with loads_slowly(container, MEANWHILE, **limit) as program:
        until_held(container, CONTEXT_MIB + 1024 + 512)
        assert program.communicate("now\n")[0] == f"0 {CONTEXT_MIB + 512}\n"


BESIDE = """
cuda, module = ctypes.CDLL("libcuda.so.1"), c_void_p()
start(cuda)
print("loads", flush=True)
print(cuda.cuModuleLoadData(byref(module), b"data 510"), used(), flush=True)
"""


def test_what_a_stranger_takes_while_a_module_loads_keeps_nobody_from_loading_it(
    container: Container, limit: dict[str, str]
) -> None:
    """Counted as the module's it does not fit, and is loaded once more."""
    stranger = {
        "CUDA_DEVICE_MEMORY_SHARED_CACHE": str(container.ledger.with_name("other")),
        "PROBE_BEGIN_WHEN_TOLD": "1",
    }
    with container.start("probe", "hold", 8192, 60, stdin=PIPE, **stranger) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert json.loads(other.stdout.readline()) == {"ready": True}
        with loads_slowly(container, BESIDE, **limit) as program:
            until_held(container, CONTEXT_MIB + 512)
            other.stdin.write("now\n")
            other.stdin.flush()
            assert program.communicate(timeout=60)[0] == f"0 {CONTEXT_MIB + 512}\n"
        other.kill()
        other.communicate()
