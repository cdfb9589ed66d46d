"""Contexts that end while the library measures in them."""

import sys
import time

import pytest

from .conftest import Container
from .node import Node, node
from .test_ways_round import START, tried

__all__ = ["node"]

MIB = 1 << 20

UNTIL_MEASURED = """
import time
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda)
module, kernel, stream = c_void_p(), c_void_p(), c_void_p()
if sys.argv[1:] == ["own"]:
    contexts = [c_void_p()]
    assert cuda.cuCtxCreate_v2(byref(contexts[0]), 0, 0) == 0
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(kernel), module, b"short")
cuda.cuStreamCreate(byref(stream), 1)
def wait(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until: pass
waits = 0
for launches in range(100_000):
    cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, None, None)
    wait(20e-6)
    waits = waits + 1 if cuda.cuStreamQuery(stream) != 0 else 0
    if waits == 3:
        break
"""
ENDS = """
ends = {"own": lambda: cuda.cuCtxDestroy_v2(contexts[0]), "reset": lambda: cuda.cuDevicePrimaryCtxReset_v2(0),
        "release": lambda: cuda.cuDevicePrimaryCtxRelease_v2(0)}
print(ends[sys.argv[1]](), waits, flush=True)
time.sleep(0.05)
"""


@pytest.mark.parametrize("how", ["own", "reset", "release"])
def test_a_context_may_end_while_its_launches_wait_for_a_gate(container: Container, how: str) -> None:
    """The word that the gate waits for goes with the context: nobody may look at it afterwards."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force"}
    assert tried(container, UNTIL_MEASURED + ENDS, how, **limits) == "0 3"


BESIDE = """
import os, threading
over, os.environ["FAKE_CUDA_ENDS_TO"] = (lambda fds: (fds[0], str(fds[1])))(os.pipe())
gone = threading.Thread(target=lambda: (measured.wait(), cuda.cuCtxDestroy_v2(other)))
measured, other = threading.Event(), c_void_p()
assert cuda.cuCtxCreate_v2(byref(other), 0, 0) == 0 == cuda.cuCtxSetCurrent(contexts[0])
gone.start()
"""
GOES_ON = """
measured.set()
os.read(over, 1)
begun = time.monotonic()
for launches in range(100):
    assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, None, None) == 0
took = time.monotonic() - begun
print(gone.is_alive(), took)
gone.join()
"""


@pytest.mark.realtime
def test_launches_go_on_while_a_context_of_another_thread_ends(container: Container) -> None:
    """Which takes the driver 4 s here. Launches are being measured in bulk as it begins, and that has to end."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force", "FAKE_CUDA_SLOW_END_MS": "4000"}
    head, tail = UNTIL_MEASURED.split("module,", 1)
    destroying, took = tried(container, head + BESIDE + "module," + tail + GOES_ON, **limits).split()
    assert (destroying, float(took) < 2) == ("True", True)


TWO_CARDS = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def create(card):
    context = c_void_p()
    assert cuda.cuCtxCreate_v2(byref(context), 0, card) == 0
    return context
def used(context):
    left, total = c_size_t(), c_size_t()
    cuda.cuCtxSetCurrent(context)
    cuda.cuMemGetInfo_v2(byref(left), byref(total))
    return (total.value - left.value) // MIB
first, second = create(0), create(1)
before = used(first), used(second)
assert cuda.cuCtxDestroy_v2(first) == 0
print(*before, used(create(0)), used(second))
"""


def test_a_context_that_ends_while_one_of_another_card_is_current_gives_back_to_its_own(container: Container) -> None:
    """The first card has the primary context, too."""
    assert tried(container, TWO_CARDS) == "960 480 960 480"


EVENTS = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
module, kernel = c_void_p(), c_void_p()
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(kernel), module, b"short")
for launches in range(100):
    assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, None, None, None) == 0
print([cuda.cuEventCreate(byref(c_void_p()), 0) for each in range(20)].count(0))
"""


def test_a_context_with_too_few_events_to_measure_with_keeps_them_all(container: Container) -> None:
    """Each launch tries to make them anew: what one try had made stayed made."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force"}
    assert tried(container, EVENTS, FAKE_CUDA_EVENTS="20", **limits) == "20"


STREAMS = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
module, kernel, ns = c_void_p(), c_void_p(), c_uint64(200_000)
params = (c_void_p * 1)(ctypes.addressof(ns))
streams = [c_void_p() for each in range(int(sys.argv[1]))]
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(kernel), module, b"spin")
for each in streams:
    assert cuda.cuStreamCreate(byref(each), 1) == 0
for launches in range(2000):
    assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, streams[launches % len(streams)], params, None) == 0
print([cuda.cuEventCreate(byref(c_void_p()), 0) for each in range(100)].count(0))
"""


def test_a_context_with_too_few_events_to_mark_the_ends_of_streams_with_keeps_them_all(container: Container) -> None:
    """Each burst tries to make 129 of them anew. What prices are measured with is made in either case."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force", "FAKE_CUDA_EVENTS": "100"}
    left = tried(container, STREAMS, 4, **limits)
    assert left == tried(container, STREAMS, 1, **limits)
    assert int(left) > 20


LIMITS = """
STACK, FIFO, HEAP = 0, 1, 2
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
"""
REFUSED = """
before = used()
print(cuda.cuCtxSetLimit(STACK, c_size_t(8192)), used() - before)
print(cuda.cuCtxSetLimit(STACK, c_size_t(2048)), used() - before)
"""


def test_a_stack_that_the_driver_refuses_is_not_charged(container: Container) -> None:
    """8 KiB for each thread would be 1848 MiB of 4 GiB."""
    assert tried(container, LIMITS + REFUSED, FAKE_CUDA_STACK_MOST="4096") == "1 0\n0 264"


HEAPS = """
before, context = used(), c_void_p()
assert cuda.cuCtxCreate_v2(byref(context), 0, 0) == 0
empty, told = used(), []
for mib in (1032, 8, 1032, 520):
    assert cuda.cuCtxSetLimit(HEAP, c_size_t(mib * MIB)) == 0
    told.append(used() - empty)
assert cuda.cuCtxDestroy_v2(context) == 0
print(*told, used() - before)
"""


def test_the_heap_of_a_context_is_charged_once_and_gone_with_it(container: Container) -> None:
    """What is set lower again the driver keeps."""
    assert tried(container, LIMITS + HEAPS) == "1024 1024 1024 1024 0"


MANY = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
module, kernel, context = c_void_p(), c_void_p(), c_void_p()
for number in range(70):
    assert cuda.cuCtxCreate_v2(byref(context), 0, 0) == 0
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(kernel), module, b"local_8192")
print(cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, None, None, None))
"""


def test_local_memory_is_held_to_the_limit_in_the_seventieth_context_too(container: Container) -> None:
    """1848 MiB of the card are left for it, and not of the limit."""
    assert tried(container, MANY, CUDA_DEVICE_MEMORY_LIMIT="35g") == "2"


RESET = """
import time
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
others = [c_void_p(), c_void_p()]
for each in others:
    assert cuda.cuCtxCreate_v2(byref(each), 0, 0) == 0
assert cuda.cuDevicePrimaryCtxReset_v2(0) == 0
print(cuda.cuDevicePrimaryCtxRelease_v2(0), flush=True)
time.sleep(60)
"""


def test_who_releases_a_context_that_was_reset_gives_nothing_back_again(node: Node) -> None:
    """NVML would set the sum right, as bytes that nobody can explain."""
    policy = node.grant("a")
    node.start_agent(nvml=True)
    process = node.start(policy, sys.executable, "-c", START + RESET)
    assert process.stdout is not None
    assert process.stdout.readline() == "201\n"
    labels = {"pod": "a", "vdevice_index": "0"}
    node.until(lambda: node.value("hami_vgpu_memory_shown_bytes", **labels) == 960 * MIB, "NVML's view")
    time.sleep(1.5)
    assert node.value("hami_vgpu_memory_used_bytes", **labels) == 960 * MIB
    assert node.value("hami_vgpu_memory_context_bytes", **labels) == 960 * MIB


FIRST = """
cuda, context, active = ctypes.CDLL("libcuda.so.1"), c_void_p(), c_int(7)
assert cuda.cuInit(0) == 0
told = [cuda.cuDevicePrimaryCtxRetain(byref(context), 0), cuda.cuCtxCreate_v2(byref(context), 0, 0)]
assert cuda.cuDevicePrimaryCtxGetState(0, byref(c_int()), byref(active)) == 0
print(*told, active.value)
"""


def test_a_first_context_that_turns_out_too_large_for_the_slice_is_undone(container: Container) -> None:
    """Nobody knows its size before: 480 MiB of 300."""
    assert tried(container, FIRST, CUDA_DEVICE_MEMORY_LIMIT="300m") == "2 2 0"


OF_PICTURES = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
makes = {"gl": lambda: cuda.cuGLCtxCreate_v2(byref(c_void_p()), 0, 0),
         "vdpau": lambda: cuda.cuVDPAUCtxCreate_v2(byref(c_void_p()), 0, 0, 0, None)}
print(take(makes[sys.argv[1]]) // 256, makes[sys.argv[1]]())
"""


@pytest.mark.parametrize("of", ["gl", "vdpau"])
def test_contexts_for_pictures_are_held_to_the_limit_as_all_others(container: Container, of: str) -> None:
    assert tried(container, OF_PICTURES, of) == f"{4096 // 480 - 1} 2"


UNMAPS = """
import threading, time
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda)
over = time.monotonic() + 6
def unmap():
    assert cuda.cuCtxSetCurrent(contexts[0]) == 0
    address, handle = c_uint64(), c_uint64()
    assert cuda.cuMemCreate(byref(handle), c_size_t(2 * MIB), struct.pack("<IIIi16x", 1, 0, 1, 0), c_uint64(0)) == 0
    assert cuda.cuMemAddressReserve(byref(address), c_size_t(2 * MIB), c_size_t(0), c_uint64(0), c_uint64(0)) == 0
    while time.monotonic() < over:
        assert cuda.cuMemMap(address, c_size_t(2 * MIB), c_size_t(0), handle, c_uint64(0)) == 0
        assert cuda.cuMemUnmap(address, c_size_t(2 * MIB)) == 0
unmapping = threading.Thread(target=unmap)
unmapping.start()
module, kernel, stream = c_void_p(), c_void_p(), c_void_p()
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuStreamCreate(byref(stream), 1)
names = 0
while time.monotonic() < over:
    cuda.cuModuleGetFunction(byref(kernel), module, b"new_%d" % names)
    names += 1
    for launches in range(4):
        assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, None, None) == 0
unmapping.join()
print("over")
"""


LONGEST = """
    for launches in range(4):
        begun = time.monotonic()
        assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, None, None) == 0
        longest = max(longest, time.monotonic() - begun)
"""


@pytest.mark.realtime
def test_a_gate_is_opened_while_the_library_waits_for_nvml(container: Container) -> None:
    """Who looks each second at NVML is not who looks after gates: here a look takes four seconds."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "90", "GPU_CORE_UTILIZATION_POLICY": "force", "HAMI_SIM_NVML_MS": "4000"}
    head, tail = UNMAPS.split("    for launches")
    code = head.replace("names = 0", "names = longest = 0") + LONGEST + "unmapping" + tail.split("unmapping", 1)[1]
    told = tried(container, code.replace('print("over")', "print(longest)"), FAKE_CUDA_UNMAP_WAITS="1", **limits)
    assert float(told) < 2


def test_a_gate_is_opened_while_the_library_itself_waits_for_a_lock(container: Container) -> None:
    """To unmap waits for the card, which waits for a gate, which waits for a launch, which waits for who unmaps."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "90", "GPU_CORE_UTILIZATION_POLICY": "force"}
    assert tried(container, UNMAPS, FAKE_CUDA_UNMAP_WAITS="1", **limits) == "over"
