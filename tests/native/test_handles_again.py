"""Handles that the driver gives out again before who ended them has heard of it: each keeps what is its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import NATIVE, Container
from .test_local_memory import MODULES, TOO_LARGE
from .test_ways_round import tried


@pytest.fixture
def unseen(blind: dict[str, str]) -> dict[str, str]:
    """No NVML, and ends take 0.5 s to be answered."""
    return {"FAKE_CUDA_SLOW_END_MS": "500"} | blind


MEANWHILE = """
import os, threading
def meanwhile(end, begin):
    over, os.environ["FAKE_CUDA_ENDS_TO"] = (lambda fds: (fds[0], str(fds[1])))(os.pipe())
    ending = threading.Thread(target=end)
    ending.start()
    os.read(over, 1)
    begun = begin()
    ending.join()
    return begun
"""
"""What begins while who ended something waits for the answer, the driver being through with it."""
CONTEXT = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def create():
    context = c_void_p()
    assert cuda.cuCtxCreate_v2(byref(context), 0, 0) == 0
    return context
def take(mib):
    address = c_uint64()
    assert cuda.cuMemAlloc_v2(byref(address), c_size_t(mib * MIB)) == 0
first = create()
take(512)
def begin():
    second = create()
    take(1024)
    return second
second = meanwhile(lambda: cuda.cuCtxDestroy_v2(first), begin)
assert second.value == first.value
print(used())
"""


def test_a_context_in_the_place_of_one_that_ends_keeps_what_it_has_taken(
    container: Container, unseen: dict[str, str]
) -> None:
    assert tried(container, MEANWHILE + CONTEXT, **unseen) == "1024"


ARRAY = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def create():
    array = c_void_p()
    shape = struct.pack("<QQQIII4x", 4096, 4096, 0, 0x20, 1, 0x40)
    assert cuda.cuArray3DCreate_v2(byref(array), shape) == 0
    return array
def fill(array):
    handle = c_uint64()
    assert cuda.cuMemCreate(byref(handle), c_size_t(512 * MIB), struct.pack("<IIIi16x", 1, 0, 1, 0), c_uint64(0)) == 0
    part = struct.pack("<i4xQi4x4QiiQQIIII", 0, array.value, 0, 0, 0, 0, 0, 1, 0, handle.value, 0, 1, 0, 0, 0)
    assert cuda.cuMemMapArrayAsync(part + bytes(96 - len(part)), 1, None) == 0
    assert cuda.cuMemRelease(handle) == 0
def begin():
    second = create()
    fill(second)
    return second
first = create()
fill(first)
second = meanwhile(lambda: cuda.cuArrayDestroy(first), begin)
assert second.value == first.value
print(used())
"""


def test_a_sparse_array_in_the_place_of_one_that_is_destroyed_keeps_its_memory(
    container: Container, unseen: dict[str, str]
) -> None:
    assert tried(container, MEANWHILE + ARRAY, **unseen) == "512"


MODULE = f"""
first = load()
function(first, b"small")
def begin():
    second = load()
    return second, function(second, {TOO_LARGE})
second, large = meanwhile(lambda: cuda.cuModuleUnload(first), begin)
assert second.value == first.value
print(launch(large))
"""


def test_functions_of_a_module_in_the_place_of_one_that_is_unloaded_are_still_looked_at(
    container: Container, unseen: dict[str, str]
) -> None:
    assert tried(container, MODULES + MEANWHILE + MODULE, **unseen) == "2"


FORKED = """
import os, signal, threading, time
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
over = False
def work():
    while not over:
        address, handle = c_uint64(), c_uint64()
        cuda.cuMemAlloc_v2(byref(address), c_size_t(MIB))
        cuda.cuMemFree_v2(address)
        cuda.cuMemCreate(byref(handle), c_size_t(2 * MIB), struct.pack("<IIIi16x", 1, 0, 1, 0), c_uint64(0))
        cuda.cuMemRelease(handle)
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads:
    each.start()
stuck = 0
for _ in range(300):
    child = os.fork()
    if child == 0:
        cuda.cuMemFree_v2(c_uint64(64))
        cuda.cuMemRelease(c_uint64(64))
        os._exit(0)
    until = time.monotonic() + 5
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            stuck += 1
            os.waitpid(child, 0)
            break
        time.sleep(0.001)
    if stuck:
        break
over = True
for each in threads:
    each.join()
print(stuck)
"""


def test_a_forked_child_waits_for_no_lock_that_another_thread_had(container: Container) -> None:
    """Destructors of a program that forks give back what is not theirs."""
    assert tried(container, FORKED) == "0"


SLOW = """
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void slow(void)
{
    char letter = 0;
    if (write(atoi(getenv("LOADS")), &letter, 1) != 1 || read(atoi(getenv("GO_ON")), &letter, 1) != 1)
        _exit(3);
}
int nvmlInit_v2(void) { return 0; }
"""
FORKS = """
import ctypes, os, signal, threading
here, (loads, told), (waits, go_on) = ctypes.CDLL(None), os.pipe(), os.pipe()
os.environ |= {"LOADS": str(told), "GO_ON": str(waits)}
thread = threading.Thread(target=lambda: here.nvmlDeviceGetMemoryInfo(None, None))
thread.start()
os.read(loads, 1)
child = os.fork()
if child == 0:
    signal.alarm(30)
    here.dlsym(None, b"cudaWhatNobodyHas")
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.write(go_on, b"1")
thread.join()
"""


def test_a_child_that_is_forked_while_another_thread_loads_a_driver_looks_names_up(
    container: Container, tmp_path: Path
) -> None:
    """NVML is loaded about a second after CUDA has started, and takes a while; a name that a driver may have."""
    (tmp_path / "slow.c").write_text(SLOW)
    made = ["-o", tmp_path / "libnvidia-ml.so.1", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "slow.c", *made], check=True)
    env = container.environment(LD_LIBRARY_PATH=str(tmp_path))
    command = [sys.executable, "-c", FORKS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "7\n"


def test_two_threads_that_meet_in_the_loader_while_both_ask_for_cuda_first_both_get_it(
    container: Container, tmp_path: Path
) -> None:
    """One opens a library whose constructor asks, with the loader's lock; the other has asked, and waits for that."""
    source, library, program = NATIVE / "tests/loads.c", tmp_path / "libslow.so", tmp_path / "loads"
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE / 'include'}", "-ldl", "-lpthread"]
    subprocess.run(["gcc", source, "-o", library, "-shared", "-fPIC", "-DSLOW", *flags], check=True)
    subprocess.run(["gcc", source, "-o", program, "-rdynamic", *flags], check=True)
    env = container.environment(CUDA_DEVICE_MEMORY_LIMIT="4g")
    done = subprocess.run([program, library], env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "1"] * 2
