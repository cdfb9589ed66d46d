"""Contexts made by several threads at once, green ones, attached ones: each is charged once, and gone with its end."""

import struct

from .conftest import Container
from .test_handles_again import MEANWHILE
from .test_ways_round import tried

MIB = 1 << 20


CONTEXTS = """
import threading
cuda = ctypes.CDLL("libcuda.so.1")
def take(mib):
    assert cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(mib * MIB)) == 0
def create():
    context = c_void_p()
    assert cuda.cuCtxCreate_v2(byref(context), 0, 0) == 0
    return context
"""
AT_ONCE = """
assert cuda.cuInit(0) == 0
assert cuda.cuDevicePrimaryCtxRetain(byref(c_void_p()), 0) == 0  # its size is known from here on
assert cuda.cuDevicePrimaryCtxRelease_v2(0) == 0
ready = threading.Barrier(4)
def retain():
    ready.wait()
    assert cuda.cuDevicePrimaryCtxRetain(byref(c_void_p()), 0) == 0
threads = [threading.Thread(target=retain) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
context = c_void_p()
assert cuda.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
together = used()
for _ in range(5): assert cuda.cuDevicePrimaryCtxRelease_v2(0) == 0
create()
print(together, used())
"""


def test_a_primary_context_that_several_threads_find_missing_is_charged_once(container: Container) -> None:
    assert tried(container, CONTEXTS + AT_ONCE, FAKE_CUDA_SLOW_MS="50") == "480 480"


ATTACHED = """
assert cuda.cuInit(0) == 0
outer = create()
before, inner = used(), create()
take(512)
again = c_void_p()
assert cuda.cuCtxAttach(byref(again), 0) == 0
print(cuda.cuCtxDetach(inner), used() - before, end=" ")
print(cuda.cuCtxDetach(inner), cuda.cuCtxSetCurrent(outer), used() - before)
"""


def test_what_a_context_holds_is_given_back_when_its_last_reference_is_detached(
    container: Container, blind: dict[str, str]
) -> None:
    """Its context's own size NVML alone would show."""
    assert tried(container, CONTEXTS + ATTACHED, **blind) == "0 512 0 0 0"


GREEN = """
assert cuda.cuInit(0) == 0
own = create()
before, green, inner = used(), c_void_p(), c_void_p()
assert cuda.cuGreenCtxCreate(byref(green), None, 0, 1) == 0
told = [used() - before]
assert cuda.cuCtxFromGreenCtx(byref(inner), green) == 0
assert cuda.cuCtxSetCurrent(inner) == 0
take(512)
told.append(used() - before)
primary = c_void_p()
assert cuda.cuDevicePrimaryCtxRetain(byref(primary), 0) == 0
assert cuda.cuGreenCtxDestroy(green) == 0
assert cuda.cuCtxSetCurrent(own) == 0
told.append(used() - before)
assert cuda.cuDevicePrimaryCtxRelease_v2(0) == 0
print(*told, used() - before)
"""


def test_a_green_context_makes_the_primary_one_and_what_is_taken_in_it_goes_with_that(
    container: Container, blind: dict[str, str]
) -> None:
    """Of 480 MiB a context, where NVML shows it; here only what is taken."""
    assert tried(container, CONTEXTS + GREEN, **blind) == "0 512 512 0"


REFUSED = """
import os, time
assert cuda.cuInit(0) == 0
green, inner, module, kernel = c_void_p(), c_void_p(), c_void_p(), c_void_p()
assert cuda.cuGreenCtxCreate(byref(green), None, 0, 1) == 0
assert cuda.cuCtxFromGreenCtx(byref(inner), green) == 0
assert cuda.cuCtxSetCurrent(inner) == 0
assert cuda.cuModuleLoadData(byref(module), b"code") == 0
assert cuda.cuModuleGetFunction(byref(kernel), module, b"short") == 0
for refused in range(int(sys.argv[1])):
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, None, None, None) == 0
    os.environ["FAKE_CUDA_FAILS"] = "cuGreenCtxDestroy"
    assert cuda.cuGreenCtxDestroy(green) != 0
print([cuda.cuEventCreate(byref(c_void_p()), 0) for each in range(300)].count(0))
"""


def test_what_is_measured_with_stays_where_a_green_context_is_not_destroyed(container: Container) -> None:
    """Of 300 events the library has some 40 for a context."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force", "FAKE_CUDA_EVENTS": "300"}
    left = tried(container, CONTEXTS + REFUSED, 1, **limits)
    assert left == tried(container, CONTEXTS + REFUSED, 4, **limits)
    assert 200 < int(left) < 280


LAST = """
assert cuda.cuInit(0) == 0
context, own = c_void_p(), create()
before = used()
assert cuda.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
if len(sys.argv) > 1:
    take(int(sys.argv[1]))
cuda.cuCtxSetCurrent(own)
retain = lambda: cuda.cuDevicePrimaryCtxRetain(byref(context), 0)
assert meanwhile(lambda: cuda.cuDevicePrimaryCtxRelease_v2(0), retain) == 0
print(used() - before, end=" ")
assert cuda.cuDevicePrimaryCtxRelease_v2(0) == 0
print(used() - before)
"""


def test_a_primary_context_that_is_wanted_while_its_last_reference_goes_is_another(
    container: Container, blind: dict[str, str]
) -> None:
    """What was taken in the one before has gone with it, though the next is wanted before its thread hears so.

    The size of a context NVML alone shows; that a buffer goes with it the simulated driver does not tell NVML.
    """
    assert tried(container, CONTEXTS + MEANWHILE + LAST, 512, FAKE_CUDA_SLOW_END_MS="500", **blind) == "0 0"
    assert tried(container, CONTEXTS + MEANWHILE + LAST, FAKE_CUDA_SLOW_END_MS="500") == "480 0"


def test_the_primary_context_that_a_green_one_makes_is_reserved_before_it_is_there(container: Container) -> None:
    code = "assert cuda.cuInit(0) == 0\ncreate()\nprint(cuda.cuGreenCtxCreate(byref(c_void_p()), None, 0, 1))"
    assert tried(container, CONTEXTS + code, CUDA_DEVICE_MEMORY_LIMIT="900m") == "2"
    assert tried(container, CONTEXTS + code, CUDA_DEVICE_MEMORY_LIMIT="1000m") == "0"


def test_whoever_goes_on_after_a_refused_start_gets_no_context_by_a_green_one_either(container: Container) -> None:
    """A ledger whose places for cards are all taken by others: the tenant can write it."""
    assert tried(container, "print(ctypes.CDLL('libcuda.so.1').cuInit(0))") == "0"
    content = bytearray(container.ledger.read_bytes())
    at = content.index(container.bench.uuid(0).encode())
    step = content.index(container.bench.uuid(1).encode()) - at
    for card in range(16):
        struct.pack_into("96s", content, at + card * step, f"GPU-of-nobody-{card}".encode())
    container.ledger.write_bytes(content)
    calls = {
        "cuInit": "0",
        "cuGreenCtxCreate": "byref(c_void_p()), None, 0, 1",
        "cuDevicePrimaryCtxRetain": "byref(c_void_p()), 0",
        "cuCtxCreate_v2": "byref(c_void_p()), 0, 0",
    }
    code = "".join(f"print(cuda.{name}({words}))\n" for name, words in calls.items())
    assert tried(container, "cuda = ctypes.CDLL('libcuda.so.1')\n" + code).split() == ["802"] * 4
