"""What a program captures stays whole: the library asks nothing that would spoil it."""

import pytest

from .conftest import Container
from .test_ways_of_memory import GRAPHS
from .test_ways_round import tried

BESIDE_A_CAPTURE = """
recorded = c_void_p()
assert cuda.cuStreamBeginCapture_v2(streams[0], 2) == 0
beside = cuda.cuGraphLaunch(runs[1], streams[1])
print("", beside, cuda.cuStreamEndCapture(streams[0], byref(recorded)), sep="|")
"""


def test_a_graph_with_memory_that_runs_while_another_stream_is_captured_leaves_the_capture_whole(
    container: Container,
) -> None:
    """Whether earlier runs are over is not asked of a stream that is being captured."""
    before = GRAPHS[: GRAPHS.index("followed =")]
    assert tried(container, before + BESIDE_A_CAPTURE) == "|0|0"


OF_ANOTHER_CARD = """
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda, 2)
streams, pool, graph = [c_void_p(), c_void_p()], c_void_p(), c_void_p()
address, places, size, mode = c_uint64(), [c_uint64(), c_uint64()], c_size_t(256 * MIB), int(sys.argv[2])
assert cuda.cuCtxSetCurrent(contexts[1]) == 0
for each in streams:
    assert cuda.cuStreamCreate(byref(each), 1) == 0
for each in places:
    assert cuda.cuMemAlloc_v2(byref(each), c_size_t(MIB)) == 0
assert cuda.cuMemPoolCreate(byref(pool), struct.pack("<iiii72x", 1, 0, 1, 1)) == 0
assert cuda.cuCtxSetCurrent(contexts[0]) == 0
def used_on(card):
    assert cuda.cuCtxSetCurrent(contexts[card]) == 0
    held = used()
    assert cuda.cuCtxSetCurrent(contexts[0]) == 0
    return held
ways = {
    "an allocation": lambda stream: cuda.cuMemAllocAsync(byref(address), size, stream),
    "an allocation from a pool": lambda stream: cuda.cuMemAllocFromPoolAsync(byref(address), size, pool, stream),
    "a copy": lambda stream: cuda.cuMemcpyDtoDAsync_v2(*places, c_size_t(MIB), stream),
}
before = used_on(0), used_on(1)
assert cuda.cuStreamBeginCapture_v2(streams[0], mode) == 0
told = [ways[sys.argv[1]](each) for each in streams]
told.append(cuda.cuStreamEndCapture(streams[0], byref(graph)))
print(*told, used_on(0) - before[0], used_on(1) - before[1])
"""


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("way", ["an allocation", "an allocation from a pool", "a copy"])
def test_what_is_asked_of_another_cards_stream_leaves_a_capture_whole(
    container: Container, way: str, mode: int
) -> None:
    """Of the one that is captured and of one beside it; what that one takes its own card has, not the current one."""
    limits = {f"CUDA_DEVICE_SM_LIMIT_{card}": "50" for card in range(2)} | {"GPU_CORE_UTILIZATION_POLICY": "force"}
    taken = 0 if way == "a copy" else 256
    assert tried(container, OF_ANOTHER_CARD, way, mode, **limits) == f"0 0 0 0 {taken}"


BESIDE = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
stream, beside, pool, recorded, graph, run = (c_void_p() for _ in range(6))
address, library, module, local = c_uint64(), c_void_p(), c_void_p(), c_void_p()
for each in (stream, beside):
    assert cuda.cuStreamCreate(byref(each), 1) == 0
def is_full():
    return cuda.cuMemAllocAsync(byref(address), c_size_t(8192 * MIB), beside)
def pooled():
    assert cuda.cuMemAllocAsync(byref(address), c_size_t(256 * MIB), beside) == 0
    return is_full
def of_graphs():
    assert cuda.cuStreamBeginCapture_v2(beside, 2) == 0
    assert cuda.cuMemAllocAsync(byref(address), c_size_t(256 * MIB), beside) == 0
    assert cuda.cuStreamEndCapture(beside, byref(graph)) == 0
    assert cuda.cuGraphInstantiateWithFlags(byref(run), graph, c_ulonglong(0)) == 0
    assert cuda.cuGraphLaunch(run, beside) == 0
    return is_full
def library_of(mib):
    return lambda: cuda.cuLibraryLoadData(byref(library), b"data %d" % mib, None, None, 0, None, None, 0)
def near_the_limit(mib):
    assert cuda.cuMemAlloc_v2(byref(address), c_size_t(3000 * MIB)) == 0
    return library_of(mib)
def function():
    assert cuda.cuModuleLoadData(byref(module), b"code") == 0
    assert cuda.cuModuleGetFunction(byref(local), module, b"local_2048") == 0
    return lambda: cuda.cuLaunchKernel(local, 1, 1, 1, 32, 1, 1, 0, stream, None, None)
call = {
    "memory that a pool has no room for": pooled,
    "memory that graphs have no room for": of_graphs,
    "a library that is loaded at once": lambda: near_the_limit(10),
    "a library that is too large": lambda: near_the_limit(1024),
    "the first launch of a function": function,
}[sys.argv[1]]()
assert cuda.cuStreamBeginCapture_v2(stream, 0) == 0
print(call(), cuda.cuStreamEndCapture(stream, byref(recorded)))
"""


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("memory that a pool has no room for", 2),
        ("memory that graphs have no room for", 2),
        ("a library that is loaded at once", 0),
        ("a library that is too large", 2),
        ("the first launch of a function", 0),
    ],
)
def test_a_capture_of_the_mode_that_forbids_it_to_all_stays_whole_beside(
    container: Container, what: str, code: int
) -> None:
    """The library gives back what lies idle, loads early and unloads where the program has asked for nothing of it."""
    assert tried(container, BESIDE, what, FAKE_CUDA_LAZY="1") == f"{code} 0"


SAMPLES = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
module, spin, graph, ns = c_void_p(), c_void_p(), c_void_p(), c_uint64(20_000_000)
words, streams = (c_void_p * 1)(ctypes.cast(byref(ns), c_void_p)), [c_void_p(), c_void_p()]
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(spin), module, b"spin")
for each in streams:
    cuda.cuStreamCreate(byref(each), 1)
def launch(stream):
    return cuda.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, stream, words, None)
told = [launch(streams[1])]
assert cuda.cuStreamBeginCapture_v2(streams[0], 0) == 0
told += [launch(streams[0]), launch(streams[1])]
print(*told, cuda.cuStreamEndCapture(streams[0], byref(graph)))
"""


def test_measurements_that_are_under_way_are_not_read_while_something_is_captured(container: Container) -> None:
    """In the strict mode even to ask an event is forbidden, to all threads."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force"}
    assert tried(container, SAMPLES, **limits) == "0 0 0 0"


WAITS = """
import time
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
stream, pool, later, graph = c_void_p(), c_void_p(), c_void_p(), c_void_p()
address, linear_address, size = c_uint64(), c_uint64(), c_size_t(64 * MIB)
assert cuda.cuStreamCreate(byref(stream), 1) == 0
for each in (pool, later):
    assert cuda.cuMemPoolCreate(byref(each), struct.pack("<iiii72x", 1, 0, 1, 0)) == 0
    assert cuda.cuMemAllocFromPoolAsync(byref(address), size, each, None) == 0
assert cuda.cuMemAlloc_v2(byref(linear_address), size) == 0
assert cuda.cuMemFreeAsync(linear_address, None) == cuda.cuMemPoolDestroy(pool) == 0
assert cuda.cuStreamBeginCapture_v2(stream, 0) == 0
assert cuda.cuMemPoolDestroy(later) == 0
time.sleep(2.5)
print(cuda.cuStreamEndCapture(stream, byref(graph)))
"""


def test_what_was_given_back_and_is_not_through_is_not_looked_after_while_something_is_captured(
    container: Container,
) -> None:
    """A pool that was destroyed before or meanwhile, and linear memory that a stream frees."""
    assert tried(container, WAITS) == "0"


BETWEEN = """
import time
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
stream, pool, graph, address, held = c_void_p(), c_void_p(), c_void_p(), c_uint64(), c_void_p()
module, spin, ns = c_void_p(), c_void_p(), c_uint64(20_000_000_000)
assert cuda.cuStreamCreate(byref(stream), 1) == cuda.cuStreamCreate(byref(held), 1) == 0
assert cuda.cuModuleLoadData(byref(module), b"code") == cuda.cuModuleGetFunction(byref(spin), module, b"spin") == 0
words = (c_void_p * 1)(ctypes.cast(byref(ns), c_void_p))
assert cuda.cuLaunchKernel(spin, 1, 1, 1, 32, 1, 1, 0, held, words, None) == 0
for _ in range(int(sys.argv[2])):
    if sys.argv[1] == "freed":
        assert cuda.cuMemAlloc_v2(byref(address), c_size_t(512)) == cuda.cuMemFreeAsync(address, held) == 0
    else:
        assert cuda.cuMemPoolCreate(byref(pool), struct.pack("<iiii72x", 1, 0, 1, 0)) == 0
        assert cuda.cuMemAllocFromPoolAsync(byref(address), c_size_t(512), pool, stream) == 0
        assert cuda.cuMemPoolDestroy(pool) == 0
spoilt, over = 0, time.monotonic() + 3.5
while time.monotonic() < over:
    assert cuda.cuStreamBeginCapture_v2(stream, 0) == 0
    for _ in range(100):
        pass
    spoilt += cuda.cuStreamEndCapture(stream, byref(graph)) != 0
    time.sleep(0.0001)
print(spoilt)
"""


@pytest.mark.parametrize(("what", "count"), [("freed", 20_000), ("pools", 3_000)])
def test_a_capture_that_begins_while_what_was_given_back_is_looked_after_stays_whole(
    container: Container, what: str, count: int
) -> None:
    """Once a second, of so many that captures begin meanwhile."""
    assert tried(container, BETWEEN, what, count, FAKE_CUDA_CHUNK_MIB="1") == "0"


LAUNCHES = """
import threading, time
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda)
stream, mine, module, spin, graph = (c_void_p() for _ in range(5))
ns = c_uint64(20_000)
words = (c_void_p * 1)(ctypes.cast(byref(ns), c_void_p))
assert cuda.cuStreamCreate(byref(stream), 1) == cuda.cuStreamCreate(byref(mine), 1) == 0
assert cuda.cuModuleLoadData(byref(module), b"code") == cuda.cuModuleGetFunction(byref(spin), module, b"spin") == 0
over, told = time.monotonic() + 4, []
def launch():
    cuda.cuCtxSetCurrent(contexts[0])
    while time.monotonic() < over:
        told.append(cuda.cuLaunchKernel(spin, 1 + len(told) % 5000, 1, 1, 32, 1, 1, 0, mine, words, None))
other = threading.Thread(target=launch)
other.start()
spoilt = 0
while time.monotonic() < over:
    assert cuda.cuStreamBeginCapture_v2(stream, 0) == 0
    for _ in range(100):
        pass
    spoilt += cuda.cuStreamEndCapture(stream, byref(graph)) != 0
    time.sleep(0.0002)
other.join()
print(spoilt, *{*told})
"""


def test_a_capture_that_begins_while_launches_are_measured_stays_whole(container: Container) -> None:
    """Of 5,000 grids, so that much is measured: of 14,000 captures 11 began while an event was asked for."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force"}
    assert tried(container, LAUNCHES, **limits) == "0 0"


CAPTURES = """
import os
from concurrent.futures import ThreadPoolExecutor
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
context, stream, other, beside, graph = (c_void_p() for _ in range(5))
mode = c_int(2)
def must(result, wanted=0):
    assert result == wanted, result
def primary():
    must(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
    must(cuda.cuCtxSetCurrent(context))
def made(which=stream):
    must(cuda.cuStreamCreate(byref(which), 1))
def begun(how=2):
    made()
    must(cuda.cuStreamBeginCapture_v2(stream, how))
def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()
def looked_after():
    "What a stream has freed is let go, which is asked for where memory lacks; not while something is captured."
    address = c_uint64()
    must(cuda.cuMemAlloc_v2(byref(address), c_size_t(2048 * MIB)))
    must(cuda.cuMemFreeAsync(address, None))
    result = cuda.cuMemAlloc_v2(byref(address), c_size_t(2048 * MIB))
    assert result in (0, 2), result
    return result == 0
"""

ENDS = {
    "an end": "begun(); must(cuda.cuStreamEndCapture(stream, byref(graph)))",
    "an end of a thread's own stream": "must(cuda.cuStreamBeginCapture_v2_ptsz(None, 2));"
    "must(cuda.cuStreamEndCapture(c_void_p(2), byref(graph)))",
    "an end of one that was spoilt": "begun(0); must(cuda.cuStreamQuery(stream), 900);"
    "must(cuda.cuStreamEndCapture(stream, byref(graph)), 901)",
    "an end of one into a graph of the program's": "made(); must(cuda.cuGraphCreate(byref(graph), 0));"
    "must(cuda.cuStreamBeginCaptureToGraph(stream, graph, None, None, c_size_t(0), 2));"
    "must(cuda.cuStreamEndCapture(stream, byref(graph)))",
    "the end of its stream": "begun(); must(cuda.cuStreamDestroy_v2(stream))",
    "the end of its context": "must(cuda.cuCtxCreate_v2(byref(context), 0, 0)); begun();"
    "must(cuda.cuCtxDestroy_v2(context)); primary()",
    "the end of its context, which is not current": "must(cuda.cuCtxCreate_v2(byref(other), 0, 0)); made(); primary();"
    "must(cuda.cuStreamBeginCapture_v2(stream, 2)); must(cuda.cuCtxDestroy_v2(other))",
    "the end of its context, though it began beside another capture": "must(cuda.cuCtxCreate_v2(byref(other), 0, 0));"
    "made(); primary(); made(beside); must(cuda.cuStreamBeginCapture_v2(beside, 2));"
    "must(cuda.cuStreamBeginCapture_v2(stream, 2)); must(cuda.cuStreamEndCapture(beside, byref(graph)));"
    "must(cuda.cuCtxDestroy_v2(other))",
    "the last release of the primary context": "begun(); must(cuda.cuDevicePrimaryCtxRelease_v2(0)); primary()",
    "a reset of the primary context": "begun(); must(cuda.cuDevicePrimaryCtxReset_v2(0)); primary()",
    "none, as it did not begin": "begun(); must(cuda.cuStreamBeginCapture_v2(stream, 2), 401);"
    "must(cuda.cuStreamEndCapture(stream, byref(graph)))",
}


@pytest.mark.parametrize("way", ENDS)
def test_a_capture_is_over_with(container: Container, way: str) -> None:
    """It went on for ever where its stream or context had ended: nothing was measured or looked after any more."""
    assert tried(container, f"{CAPTURES}{ENDS[way]}\nprint(looked_after())") == "True"


GOES_ON = {
    "an end of another stream, which captures nothing": "made(other);"
    "must(cuda.cuStreamEndCapture(other, byref(graph)), 401)",
    "the end of another stream": "made(other); must(cuda.cuStreamDestroy_v2(other))",
    "the end of another context": "must(cuda.cuCtxCreate_v2(byref(context), 0, 0));must(cuda.cuCtxDestroy_v2(context))",
    "the end of its context, which fails": "os.environ['FAKE_CUDA_FAILS'] = 'cuCtxDestroy_v2';"
    "must(cuda.cuCtxGetCurrent(byref(context))); must(cuda.cuCtxDestroy_v2(context), 201)",
    "a release of the primary context, which is held": "primary(); must(cuda.cuDevicePrimaryCtxRelease_v2(0))",
    "an end in another thread, which may not": "in_thread("
    "lambda: must(cuda.cuStreamEndCapture(stream, byref(graph)), 908))",
    "another way of its thread": "must(cuda.cuThreadExchangeStreamCaptureMode(byref(mode)))",
}


@pytest.mark.parametrize("way", GOES_ON)
def test_a_capture_goes_on_after(container: Container, way: str) -> None:
    """Only the thread that began it may end one of this mode."""
    then = "before = looked_after(); must(cuda.cuStreamEndCapture(stream, byref(graph))); print(before, looked_after())"
    assert tried(container, f"{CAPTURES}begun(1)\n{GOES_ON[way]}\n{then}") == "False True"
