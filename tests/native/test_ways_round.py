"""Ways round the library that a program may try with documented calls: each is held, or refused.

Programs are Python with ctypes, which asks the C library's dlopen and dlsym as every other program does.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hami.sim.cards import Bench, parse

from .conftest import Container

LIMIT_MIB, CONTEXT_MIB = 4096, 480
HELD_MIB = LIMIT_MIB - CONTEXT_MIB  # in pieces of 256
START = """
import ctypes, struct, sys
from ctypes import byref, c_int, c_size_t, c_uint64, c_ulonglong, c_void_p
MIB = 1 << 20
def start(cuda, cards=1):
    contexts = []
    assert cuda.cuInit(0) == 0
    for index in range(cards):
        context = c_void_p()
        if cuda.cuDevicePrimaryCtxRetain(byref(context), index) == 0:
            contexts.append(context)
    assert cuda.cuCtxSetCurrent(contexts[0]) == 0
    return contexts
def take(call, most=60):
    taken = 0
    while taken < most and call() == 0:
        taken += 1
    return taken * 256
def linear(cuda):
    return take(lambda: cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(256 * MIB)))
"""


def tried(container: Container, code: str, *words: object, **env: str) -> str:
    """What the program printed; by default its limit is 4 GiB a card."""
    limits = {"CUDA_DEVICE_MEMORY_LIMIT": f"{LIMIT_MIB}m"} | env
    command = [sys.executable, "-c", START + code, *map(str, words)]
    done = subprocess.run(
        command, env=container.environment(**limits), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WAY = Path(__file__).resolve().parents[1] / "gpu" / "way.py"
"""Tries single ways on a card, too."""


def way(container: Container, *words: object, **env: str) -> dict[str, object]:
    command = [sys.executable, str(WAY), *map(str, words)]
    done = subprocess.run(
        command, env=container.environment(**env), capture_output=True, text=True, check=True, timeout=60
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


# ---- another file, another copy, another name space ----

BY_NAME = """
cuda = ctypes.CDLL(sys.argv[1])
start(cuda)
print(linear(cuda))
"""
BESIDE = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
other = ctypes.CDLL(sys.argv[1])
try:
    print(linear(other))
except AttributeError as fault:
    print("denied by libvgpu" in str(fault))
"""


@pytest.mark.parametrize("kind", ["link", "copy", "copy of another name"])
def test_a_driver_by_any_other_name_is_held_the_same(container: Container, tmp_path: Path, kind: str) -> None:
    driver = container.tools.folder / "sim" / "libcuda.so.1"
    other = tmp_path / ("libcuda.so.1" if kind == "copy" else "plain.so")
    if kind == "link":
        other.symlink_to(driver)
    else:
        shutil.copy(driver, other)
    assert int(tried(container, BY_NAME, other)) <= HELD_MIB
    beside = tried(container, BESIDE, other)
    assert beside == "True" if kind != "link" else int(beside) <= HELD_MIB
    assert int(tried(container, BY_NAME, other, LD_PRELOAD="")) > LIMIT_MIB


SPACES = """
base = ctypes.CDLL(None)
base.dlmopen.restype = base.dlsym.restype = c_void_p
base.dlsym.argtypes = [c_void_p, ctypes.c_char_p]
handle = base.dlmopen(ctypes.c_long(-1), sys.argv[1].encode(), 2)
if handle is None:
    print("no name space")
else:
    opens = ctypes.CFUNCTYPE(c_void_p)(base.dlsym(handle, b"opens"))
    print(base.dlsym(opens(), b"cuMemAlloc_v2"))
"""
OPENS = '#include <dlfcn.h>\nvoid *opens(void) { return dlopen("libcuda.so.1", RTLD_NOW); }\n'


def test_a_driver_in_a_name_space_of_its_own_is_not_given(container: Container, tmp_path: Path) -> None:
    """Neither by another name, nor found there once a library of that space has opened it."""
    copy, helper = tmp_path / "plain.so", tmp_path / "helper.so"
    shutil.copy(container.tools.folder / "sim" / "libcuda.so.1", copy)
    (tmp_path / "helper.c").write_text(OPENS)
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "helper.c", "-o", helper, "-ldl"], check=True)
    assert tried(container, SPACES, copy) == "no name space"
    assert tried(container, SPACES, helper) == "None"
    assert int(tried(container, SPACES, helper, LD_PRELOAD="")) != 0


# ---- a start that was refused, and a start that is interrupted ----

GOES_ON = """
cuda = ctypes.CDLL("libcuda.so.1")
told = cuda.cuInit(0)
context, handle = c_void_p(), c_uint64()
place = struct.pack("iiiiP8x", 1, 0, 1, 0, 0)
print(told, cuda.cuDevicePrimaryCtxRetain(byref(context), 0), cuda.cuCtxCreate_v2(byref(context), 0, 0),
      cuda.cuMemCreate(byref(handle), c_size_t(256 * MIB), place, c_ulonglong(0)))
"""


def test_who_goes_on_after_a_start_that_was_refused_gets_nothing(container: Container, tmp_path: Path) -> None:
    """The driver has started by then: what is refused here is that the ledger has no room for a seventeenth card."""
    for pair in range(9):
        cards = ", ".join(f"{{model: A100-40, uuid: GPU-{pair:08}-0000-0000-0000-{each:012}}}" for each in (1, 2))
        container.bench = Bench(tmp_path / f"cards{pair}", parse(f"cards: [{cards}]"))
        said = tried(container, GOES_ON)
        assert said == ("0 0 0 0" if pair < 8 else "802 802 802 802")
    assert tried(container, GOES_ON, LD_PRELOAD="") == "0 0 0 0"


INTERRUPTED = """
import threading
cuda = ctypes.CDLL("libcuda.so.1")
context, seen = c_void_p(), []
def others():
    while cuda.cuDeviceGetCount(byref(c_int())) != 0:
        pass
    seen.append(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
thread = threading.Thread(target=others)
thread.start()
told = cuda.cuInit(0)
thread.join()
cuda.cuCtxSetCurrent(context)
print(told, seen == [802], linear(cuda))
"""


SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
int pthread_mutex_init(pthread_mutex_t *lock, const pthread_mutexattr_t *attributes)
{
    int (*real)(pthread_mutex_t *, const pthread_mutexattr_t *);
    void *found = dlsym(RTLD_NEXT, "pthread_mutex_init");
    memcpy(&real, &found, sizeof real);
    usleep(20000);
    return real(lock, attributes);
}
"""
"""Makes the time long in which the driver has started and the library has not: it makes a lock for each card."""


def test_a_thread_that_is_faster_than_cuinit_gets_no_context_past_the_limits(
    container: Container, tmp_path: Path
) -> None:
    (tmp_path / "slow.c").write_text(SLOW)
    slow = tmp_path / "slow.so"
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "slow.c", "-o", slow, "-ldl"], check=True)
    told, fair, taken = tried(container, INTERRUPTED, LD_PRELOAD=f"{container.tools.library} {slow}").split()
    assert (told, fair, int(taken)) == ("0", "True", 0)


# ---- copies on the card by other names ----


@pytest.mark.parametrize("how", ["peer", "peer3d", "batch3d", "hinted", "hinted3d"])
def test_a_copy_on_the_card_is_charged_whatever_it_is_called(container: Container, how: str) -> None:
    """Between contexts of one card, in batches, with hints: 256 MiB take 268 us of the simulated card."""
    limit = {"CUDA_DEVICE_SM_LIMIT": "25", "GPU_CORE_UTILIZATION_POLICY": "force"}
    a_second = way(container, "copies", how, 1.5, **limit)["a_second"]
    assert isinstance(a_second, float)
    assert 1 < a_second * 268e-6 * 100 < 29


# ---- a card that is not the current one ----

OTHER_CARD = """
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda, 2)
def used(index):
    left, total = c_size_t(), c_size_t()
    cuda.cuCtxSetCurrent(contexts[index])
    cuda.cuMemGetInfo_v2(byref(left), byref(total))
    cuda.cuCtxSetCurrent(contexts[0])
    return (total.value - left.value) // MIB
pool, stream, address, size = c_void_p(), c_void_p(), c_uint64(), c_size_t(256 * MIB)
def from_pool():
    return cuda.cuMemAllocFromPoolAsync(byref(address), size, pool, None)
def from_stream():
    return cuda.cuMemAllocAsync(byref(address), size, stream)
def node(graph):
    asked = ctypes.create_string_buffer(struct.pack("iiii", 1, 0, 1, 1) + bytes(88) + struct.pack("QQ", 256 * MIB, 0))
    assert cuda.cuGraphAddMemAllocNode(byref(c_void_p()), graph, None, c_size_t(0), asked) == 0
def run(graph):
    run = c_void_p()
    return cuda.cuGraphInstantiateWithFlags(byref(run), graph, c_ulonglong(0)) or cuda.cuGraphLaunch(run, None)
def graph(inside=0):
    made = c_void_p()
    cuda.cuGraphCreate(byref(made), 0)
    if inside == 0:
        node(made)
    else:
        cuda.cuGraphAddChildGraphNode(byref(c_void_p()), made, None, c_size_t(0), graph(inside - 1))
    return made
ways = {"pool": from_pool, "default pool": from_pool, "stream": from_stream,
        "graph": lambda: run(graph()), "nested": lambda: run(graph(20)), "too deep": lambda: run(graph(300))}
if sys.argv[1] == "pool":
    cuda.cuMemPoolCreate(byref(pool), struct.pack("iiii", 1, 0, 1, 1) + bytes(72))
if sys.argv[1] == "default pool":
    cuda.cuDeviceGetDefaultMemPool(byref(pool), 1)
if sys.argv[1] == "stream":
    cuda.cuCtxSetCurrent(contexts[1])
    cuda.cuStreamCreate(byref(stream), 1)
    cuda.cuCtxSetCurrent(contexts[0])
print(take(ways[sys.argv[1]]), used(0), used(1))
"""


@pytest.mark.parametrize("how", ["pool", "default pool", "stream", "graph", "nested"])
def test_memory_of_another_card_than_the_current_one_is_held_to_that_cards_limit(
    container: Container, how: str
) -> None:
    """The first card may hold more than the second, whose pool, stream or graph node it is."""
    limits = {"CUDA_DEVICE_MEMORY_LIMIT_0": "9000m", "CUDA_DEVICE_MEMORY_LIMIT_1": "2400m"}
    taken, first, second = map(int, tried(container, OTHER_CARD, how, **limits).split())
    assert (taken, first, second) == (1792, CONTEXT_MIB, CONTEXT_MIB + 1792)


def test_a_graph_that_nobody_can_look_into_is_refused(container: Container) -> None:
    assert tried(container, OTHER_CARD, "too deep").split()[0] == "0"


# ---- memory of which the handle was given back ----

KEPT = """
import os, socket, time
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
size, place, others = c_size_t(256 * MIB), struct.pack("iiiiPQ", 1, 1, 1, 0, 0, 0), []
array, object = c_void_p(), c_uint64()
def create():
    handle = c_uint64()
    told = cuda.cuMemCreate(byref(handle), size, place, c_ulonglong(0))
    return told, handle
def part(number, operation, handle):
    asked = struct.pack("iiQiiIIIIIIIIiiQQIIII", 0, 0, array.value, 0, 0, 0, 0, number, 0, 0, 64, 64, 1, operation, 0,
                        handle.value, 0, 1, 0, 0, 0)
    return cuda.cuMemMapArrayAsync(asked, 1, None)
def by_descriptor():
    told, handle = create()
    if told == 0:
        fd = c_int()
        told = cuda.cuMemExportToShareableHandle(byref(fd), handle, 1, c_ulonglong(0))
        cuda.cuMemRelease(handle)
        others.append(lambda: os.close(fd.value))
    return told
def by_dmabuf():
    address, fd = c_uint64(), c_int()
    told = cuda.cuMemAlloc_v2(byref(address), size)
    if told == 0:
        told = cuda.cuMemGetHandleForAddressRange(byref(fd), address, size, 1, c_ulonglong(0))
        cuda.cuMemFree_v2(address)
        others.append(lambda: os.close(fd.value))
    return told
def by_multicast():
    told, handle = create()
    if told == 0:
        offset = c_size_t(len(others) * 256 * MIB)
        told = cuda.cuMulticastBindMem(object, offset, handle, c_size_t(0), size, c_ulonglong(0))
        cuda.cuMemRelease(handle)
        others.append(lambda: cuda.cuMulticastUnbind(object, 0, offset, size))
    return told
def by_array():
    told, handle = create()
    if told == 0:
        number = len(others)
        told = part(number, 1, handle)
        cuda.cuMemRelease(handle)
        others.append(lambda: part(number, 2, c_uint64(0)))
    return told
cuda.cuMulticastCreate(byref(object), bytes(64))
cuda.cuArray3DCreate_v2(byref(array), struct.pack("QQQiII", 65536, 65536, 0, 0x20, 1, 0x40))
ways = {"descriptor": by_descriptor, "dmabuf": by_dmabuf, "multicast": by_multicast, "array": by_array}
print(take(ways[sys.argv[1]]), linear(cuda))
for each in others[:4]: each()
time.sleep(0.1)
print(take(lambda: create()[0]))
"""


@pytest.mark.parametrize("how", ["descriptor", "dmabuf", "multicast", "array"])
def test_memory_stays_charged_while_anything_holds_it_and_no_longer(container: Container, how: str) -> None:
    """Its handle is released at once, and a descriptor, multicast object or sparse array has it then; four let go."""
    assert tried(container, KEPT, how).split() == [str(HELD_MIB // 256 * 256), "0", "1024"]


# ---- local memory of kernels ----

LOCAL = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def function(size):
    module, found = c_void_p(), c_void_p()
    if sys.argv[1] == "kernel":
        assert cuda.cuLibraryLoadData(byref(module), b"code", None, None, 0, None, None, 0) == 0
        assert cuda.cuLibraryGetKernel(byref(found), module, b"local_%d" % size) == 0
    else:
        assert cuda.cuModuleLoadData(byref(module), b"code") == 0
        assert cuda.cuModuleGetFunction(byref(found), module, b"local_%d" % size) == 0
    return found
def launch(found):
    return cuda.cuLaunchKernel(found, 1, 1, 1, 32, 1, 1, 0, None, None, None)
def used():
    left, total = c_size_t(), c_size_t()
    cuda.cuMemGetInfo_v2(byref(left), byref(total))
    return (total.value - left.value) // MIB
small, large, too_large = function(512), function(8192), function(65536)
before = used()
told = [launch(small), launch(large), launch(large), launch(too_large), launch(small)]
print(*told, used() - before, cuda.cuCtxSetLimit(0, c_size_t(65536)), cuda.cuCtxSetLimit(0, c_size_t(8192)))
"""


@pytest.mark.parametrize("lazy", ["", "1"])
@pytest.mark.parametrize("how", ["function", "kernel"])
@pytest.mark.parametrize("cores", ["0", "50"])
def test_local_memory_of_kernels_is_held_to_the_limit(container: Container, how: str, lazy: str, cores: str) -> None:
    """7 KiB more a thread are 1848 MiB of 132 times 2048 threads, 63 KiB are 16,632; the same of a stack's limit."""
    env = {"CUDA_DEVICE_SM_LIMIT": cores, "GPU_CORE_UTILIZATION_POLICY": "force"} | (
        {"FAKE_CUDA_LAZY": lazy} if lazy else {}
    )
    assert tried(container, LOCAL, how, **env).split() == ["0", "0", "0", "2", "0", "1848", "2", "0"]


# ---- graphs that share their memory while they run one by one ----

GRAPHS = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
module, spin = c_void_p(), c_void_p()
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(spin), module, b"spin")
def captured(stream):
    graph, run, address, ns = c_void_p(), c_void_p(), c_uint64(), c_uint64(200_000_000)
    words = (c_void_p * 1)(ctypes.cast(byref(ns), c_void_p))
    cuda.cuStreamBeginCapture_v2(stream, 2)
    assert cuda.cuMemAllocAsync(byref(address), c_size_t(1024 * MIB), stream) == 0
    cuda.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, words, None)
    cuda.cuMemFreeAsync(address, stream)
    cuda.cuStreamEndCapture(stream, byref(graph))
    assert cuda.cuGraphInstantiateWithFlags(byref(run), graph, c_ulonglong(0)) == 0
    return run
def held():
    value = c_uint64()
    cuda.cuDeviceGetGraphMemAttribute(0, 2, byref(value))
    return value.value // MIB
streams = [c_void_p() for _ in range(5)]
for each in streams:
    cuda.cuStreamCreate(byref(each), 1)
runs = [captured(each) for each in streams]
for _ in range(2):
    one_by_one = [cuda.cuGraphLaunch(run, each) or cuda.cuStreamSynchronize(each) for run, each in zip(runs, streams)]
    one = held()
followed = [cuda.cuGraphLaunch(run, streams[0]) for run in runs]
cuda.cuCtxSynchronize()
two = held()
at_once = [cuda.cuGraphLaunch(run, each) for run, each in zip(runs, streams)]
print(one_by_one, one, followed, two, at_once, held(), sep="|")
"""


def test_graphs_that_run_at_once_have_no_more_than_the_limit(container: Container) -> None:
    """Of five of 1 GiB three fit at a time; one after the other, in one stream or in several, they share it."""
    one_by_one, one, followed, two, at_once, three = tried(container, GRAPHS).split("|")
    assert (one_by_one, one, followed, two) == ("[0, 0, 0, 0, 0]", "1024", "[0, 0, 0, 0, 0]", "1024")
    assert (at_once, three) == ("[0, 0, 0, 2, 2]", "3072")
