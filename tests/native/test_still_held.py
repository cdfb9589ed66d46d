"""What a program gives back and the card still has stays charged until the card has it no more.

Without NVML, which would show it a second later; so all of the limit is to be had, a context's size being unknown.
"""

from pathlib import Path

import pytest

from .conftest import Container
from .test_ways_round import tried

CUDA = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
SIZE = c_size_t(256 * MIB)
def physical(location=1):
    handle = c_uint64()
    told = cuda.cuMemCreate(byref(handle), SIZE, struct.pack("<IIIi16x", 1, 0, location, 0), c_uint64(0))
    return told, handle
def mapped(handle, at):
    assert cuda.cuMemMap(at, SIZE, c_size_t(0), handle, c_uint64(0)) == 0
def place(count):
    at = c_uint64()
    assert cuda.cuMemAddressReserve(byref(at), c_size_t(count * 256 * MIB), c_size_t(0), c_uint64(0), c_uint64(0)) == 0
    return at.value
"""
RETAINED = """
inside, kept = int(sys.argv[1]) * MIB, []
def take_one():
    told, handle = physical()
    if told == 0:
        at, again = place(1), c_uint64()
        mapped(handle, c_uint64(at))
        assert cuda.cuMemRetainAllocationHandle(byref(again), c_void_p(at + inside)) == 0
        assert cuda.cuMemUnmap(c_uint64(at), SIZE) == cuda.cuMemRelease(handle) == 0
        kept.append(again)
    return told
print(take(take_one), linear(cuda))
for each in kept[:4]:
    assert cuda.cuMemRelease(each) == 0
print(take(take_one))
"""


@pytest.mark.parametrize("inside_mib", [0, 2, 254])
def test_memory_is_charged_while_a_handle_is_kept_that_was_asked_for_by_any_address_in_it(
    container: Container, blind: dict[str, str], inside_mib: int
) -> None:
    assert tried(container, CUDA + RETAINED, inside_mib, **blind).split() == ["4096", "0", "1024"]


IMPORTED = """
import os
kept = []
def take_one():
    told, handle = physical()
    fd, again = c_int(), c_uint64()
    if told == 0:
        assert cuda.cuMemExportToShareableHandle(byref(fd), handle, 1, c_uint64(0)) == 0
        early = len(kept) % 2 == 0
        assert not early or cuda.cuMemRelease(handle) == 0
        assert cuda.cuMemImportFromShareableHandle(byref(again), c_void_p(fd.value), 1) == 0
        assert early or cuda.cuMemRelease(handle) == 0
        os.close(fd.value)
        kept.append(again)
    return told
print(take(take_one), linear(cuda))
for each in kept[:4]:
    assert cuda.cuMemRelease(each) == 0
print(take(take_one))
"""


def test_memory_is_charged_while_the_process_that_made_it_has_it_by_a_handle_that_it_imported_itself(
    container: Container, blind: dict[str, str]
) -> None:
    """Before or after the first handle is released; its descriptor is closed, too."""
    assert tried(container, CUDA + IMPORTED, **blind).split() == ["4096", "0", "1024"]


BOUND = """
count = 0
def take_one():
    global count
    told, handle = physical()
    if told == 0:
        offset, at = c_uint64(count * 256 * MIB), place(1)
        mapped(handle, c_uint64(at))
        if sys.argv[1] == "memory":
            assert cuda.cuLogicalEndpointBindMem(0, 0, offset, handle, c_uint64(0), SIZE, c_uint64(0)) == 0
        else:
            assert cuda.cuLogicalEndpointBindAddr(0, 0, offset, c_void_p(at + 2 * MIB), SIZE, c_uint64(0)) == 0
        assert cuda.cuMemUnmap(c_uint64(at), SIZE) == cuda.cuMemRelease(handle) == 0
        count += 1
    return told
print(take(take_one), linear(cuda))
assert cuda.cuLogicalEndpointUnbind(0, 0, c_uint64(256 * MIB), c_uint64(1024 * MIB)) == 0
print(take(take_one), linear(cuda))
assert cuda.cuLogicalEndpointDestroy(0) == 0
print(take(take_one))
"""


@pytest.mark.parametrize("by", ["memory", "address"])
def test_memory_is_charged_while_a_logical_endpoint_has_it(
    container: Container, blind: dict[str, str], by: str
) -> None:
    """Of CUDA 13.3 and later. Four are unbound and taken again, then all go with it."""
    assert tried(container, CUDA + BOUND, by, **blind).split() == ["4096", "0", "1024", "0", "4096"]


UNMAPPED = """
(_, host), (_, first), (_, second), at = physical(location=2), physical(), physical(), place(3)
for number, handle in enumerate((host, first, second)):
    mapped(handle, c_uint64(at + number * 256 * MIB))
    assert cuda.cuMemRelease(handle) == 0
before = used()
assert cuda.cuMemUnmap(c_uint64(at), c_size_t(3 * 256 * MIB)) == 0
print(before, used())
"""


def test_mappings_that_are_undone_together_with_one_of_the_hosts_memory_are_given_back(
    container: Container, blind: dict[str, str]
) -> None:
    assert tried(container, CUDA + UNMAPPED, **blind) == "512 0"


POOLS = """
import time
stream = c_void_p()
assert cuda.cuStreamCreate(byref(stream), 1) == 0
def pool(current=False):
    made = c_void_p()
    assert cuda.cuMemPoolCreate(byref(made), struct.pack("<iiii72x", 1, 0, 1, 0)) == 0
    assert not current or cuda.cuDeviceSetMemPool(0, made) == 0
    return made
def destroyed():  # three quarters of its two chunks are in use
    own, address = pool(), c_uint64()
    told = cuda.cuMemAllocFromPoolAsync(byref(address), c_size_t(48 * MIB), own, stream)
    assert cuda.cuMemPoolDestroy(own) == 0
    assert told != 0 or cuda.cuMemPoolDestroy(own) != 0
    if told == 0:
        live.append(address)
    return told
live = []
"""
DESTROYED = """
count = 0
while count < 200 and destroyed() == 0:
    count += 1
print(count * 64, linear(cuda))
for each in live[:8]:
    assert cuda.cuMemFreeAsync(each, stream) == 0
print(linear(cuda))
"""


def test_a_pool_that_is_destroyed_is_charged_while_anything_of_it_is_in_use(
    container: Container, blind: dict[str, str]
) -> None:
    """Eight of 64 MiB are given back at last."""
    assert tried(container, CUDA + POOLS + DESTROYED, **blind).split() == ["4096", "0", "512"]


CURRENT = """
own, first, second = pool(current=True), c_uint64(), c_uint64()
assert cuda.cuMemAllocAsync(byref(first), SIZE, stream) == 0
assert cuda.cuMemPoolDestroy(own) == 0
now, default = c_void_p(), c_void_p()
assert cuda.cuDeviceGetMemPool(byref(now), 0) == cuda.cuDeviceGetDefaultMemPool(byref(default), 0) == 0
assert cuda.cuMemAllocAsync(byref(second), SIZE, stream) == 0
told = [now.value == default.value, used()]
for each in (first, second):
    assert cuda.cuMemFreeAsync(each, stream) == 0
over = time.monotonic() + 30
while used() != 0 and time.monotonic() < over:
    time.sleep(0.05)
print(*told, used(), cuda.cuMemPoolDestroy(default))
"""


def test_after_the_current_pool_is_destroyed_memory_comes_from_the_cards_own(
    container: Container, blind: dict[str, str]
) -> None:
    """As the driver has it; and that one nobody destroys."""
    assert tried(container, CUDA + POOLS + CURRENT, **blind) == "True 512 0 1"


LATER = """
import time
module, spin, stream = c_void_p(), c_void_p(), c_void_p()
assert cuda.cuModuleLoadData(byref(module), b"code") == cuda.cuModuleGetFunction(byref(spin), module, b"spin") == 0
streams = {"none": (None, ""), "own": (stream, ""), "thread": (None, "_ptsz")}
assert cuda.cuStreamCreate(byref(stream), 1) == 0
where, suffix = streams[sys.argv[1]]
addresses, told = [c_uint64() for _ in range(3)], []
for each in addresses:
    assert cuda.cuMemAlloc_v2(byref(each), SIZE) == 0
ns = c_uint64(2_000_000_000)
words = (c_void_p * 1)(ctypes.cast(byref(ns), c_void_p))
assert cuda["cuLaunchKernel" + suffix](spin, 1, 1, 1, 32, 1, 1, 0, where, words, None) == 0
for each in addresses[:2]:
    told.append(cuda["cuMemFreeAsync" + suffix](each, where))
told += [used(), take(lambda: cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(3584 * MIB)))]
assert cuda.cuCtxSynchronize() == 0
told += [take(lambda: cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(3584 * MIB))), used()]
assert cuda.cuMemFree_v2(addresses[2]) == 0
print(*told, used(), cuda["cuMemFreeAsync" + suffix](c_uint64(4096), where))
"""


@pytest.mark.parametrize("stream", ["none", "own", "thread"])
def test_linear_memory_that_is_freed_in_a_streams_order_is_charged_until_the_stream_has_come_there(
    container: Container, blind: dict[str, str], stream: str
) -> None:
    """As cudaFreeAsync of what cudaMalloc gave. It was charged until the process ended."""
    told = tried(container, CUDA + LATER, stream, **blind)
    assert told == "0 0 768 0 256 3840 3584 1"


GONE = """
own, address, stream = c_void_p(), c_uint64(), c_void_p()
if sys.argv[1] == "another":
    assert cuda.cuMemAlloc_v2(byref(address), SIZE) == 0
assert cuda.cuCtxCreate_v2(byref(own), 0, 0) == cuda.cuStreamCreate(byref(stream), 1) == 0
module, spin, ns = c_void_p(), c_void_p(), c_uint64(1_000_000_000)
assert cuda.cuModuleLoadData(byref(module), b"code") == cuda.cuModuleGetFunction(byref(spin), module, b"spin") == 0
words = (c_void_p * 1)(ctypes.cast(byref(ns), c_void_p))
if sys.argv[1] == "it":
    assert cuda.cuMemAlloc_v2(byref(address), SIZE) == 0
assert cuda.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, words, None) == 0
assert cuda.cuMemFreeAsync(address, stream) == 0
before = used()
assert cuda.cuCtxDestroy_v2(own) == 0
contexts = start(cuda)
print(before, used())
"""


@pytest.mark.parametrize("taken_in", ["it", "another"])
def test_what_was_to_be_freed_in_a_context_that_ends_is_given_back_with_it(
    container: Container, blind: dict[str, str], taken_in: str
) -> None:
    """Its stream goes with it, and who would ask that one's event would ask for what is there no more."""
    assert tried(container, CUDA + GONE, taken_in, **blind) == "256 0"


FOREIGN = """
import os, subprocess, time
libc, cuda, kind = ctypes.CDLL(None), ctypes.CDLL("libcuda.so.1"), sys.argv[2]
start(cuda)
class Handle(ctypes.Structure):
    _fields_ = [("letters", ctypes.c_char * 64)]
def let_in(token):
    made = c_uint64()
    if kind == "ipc":
        return cuda.cuIpcOpenMemHandle_v2(byref(made), Handle.from_buffer_copy(bytes.fromhex(token)), 1), made
    pid, number, _ = map(int, token.split(":"))
    fd = libc.syscall(438, os.pidfd_open(pid), number, 0)  # pidfd_getfd
    return cuda.cuMemImportFromShareableHandle(byref(made), c_void_p(fd), 1), made
def another():
    env = os.environ | {"CUDA_DEVICE_MEMORY_SHARED_CACHE": sys.argv[3], "CUDA_DEVICE_MEMORY_LIMIT": "8g"}
    command = [sys.argv[1], "lend", kind, "3072", "keep", "-1"]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as maker:
        told = let_in(json.loads(maker.stdout.readline())["token"])
        maker.kill()
    return told
def until(mib):
    over = time.monotonic() + 30
    while used() != mib and time.monotonic() < over:
        time.sleep(0.05)
    return used()
import json
first = another()
told = [first[0], until(480 + 3072)]
second = another()
told += [second[0], until(4096), another()[0], used()]
assert (cuda.cuIpcCloseMemHandle if kind == "ipc" else cuda.cuMemRelease)(second[1]) == 0
print(*told, until(480 + 3072), another()[0])
"""


@pytest.mark.parametrize("kind", ["ipc", "fd"])
def test_who_has_more_than_the_limit_is_handed_nothing_more_by_other_containers(
    container: Container, tmp_path: Path, kind: str
) -> None:
    """Of 3 GiB each of another container of its pod, whose makers end when it has them; that one has its own limit."""
    told = tried(container, FOREIGN, container.tools.folder / "probe", kind, tmp_path / "theirs")
    assert told == "0 3552 0 4096 2 4096 3552 0"
