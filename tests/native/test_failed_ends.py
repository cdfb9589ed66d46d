"""Ends that the driver refuses: what was to end stays charged, and is given back when it does end (simulated driver).

Without NVML the ledger alone says what is held: what NVML would show a second later hides nothing.
"""

import pytest

from .conftest import Container
from .test_ways_round import tried

ENDS = """
import os
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
SIZE = 512 * MIB
def must(result):
    assert result == 0, result
def linear():
    address = c_uint64()
    must(cuda.cuMemAlloc_v2(byref(address), c_size_t(SIZE)))
    return address
def lent():
    address = linear()
    must(cuda.cuIpcGetMemHandle(bytes(64), address))
    return address
def physical():
    handle = c_uint64()
    must(cuda.cuMemCreate(byref(handle), c_size_t(SIZE), struct.pack("<IIIi16x", 1, 0, 1, 0), c_uint64(0)))
    return handle
def array():
    made = c_void_p()
    must(cuda.cuArray3DCreate_v2(byref(made), struct.pack("<QQQIII4x", 16384, 8192, 0, 0x20, 1, 0)))
    return made
def cubin_of(mib):
    names = b"\\0.nv.global\\0.shstrtab\\0"
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\\x7fELF\\2\\1\\1", 0, 190, 0, 0, 0, 64, 0, 64, 0, 0, 64, 3, 2)
    data = struct.pack("<IIQQQQIIQQ", 1, 8, 3, 0, 0, mib * MIB, 0, 0, 0, 0)
    return head + bytes(64) + data + struct.pack("<IIQQQQIIQQ", 12, 3, 0, 0, 256, len(names), 0, 0, 0, 0) + names
def cubin():
    module = c_void_p()
    must(cuda.cuModuleLoadData(byref(module), cubin_of(510)))
    return module
def context():
    made = c_void_p()
    must(cuda.cuCtxCreate_v2(byref(made), 0, 0))
    linear()
    return made
WAYS = {"linear": (linear, "cuMemFree_v2"), "lent": (lent, "cuMemFree_v2"), "physical": (physical, "cuMemRelease"),
        "array": (array, "cuArrayDestroy"), "cubin": (cubin, "cuModuleUnload"), "context": (context, "cuCtxDestroy_v2")}
make, end = WAYS[sys.argv[1]]
"""
TOLD = """
before, made, told = used(), make(), []
told.append(used() - before)
for failing in (True, True, False):
    os.environ["FAKE_CUDA_FAILS"] = end if failing else "nothing"
    told.append(cuda[end](made) != 0)
    told.append(used() - before)
print(*told)
"""


@pytest.mark.parametrize("way", ["linear", "lent", "physical", "array", "cubin", "context"])
def test_what_the_driver_does_not_end_stays_charged_until_it_does(
    container: Container, blind: dict[str, str], way: str
) -> None:
    taken = 510 if way == "cubin" else 512
    assert tried(container, ENDS + TOLD, way, **blind) == f"{taken} True {taken} True {taken} False 0"


HELD = """
device = c_int(0)
linear()
told = [used()]
again = c_void_p()
must(cuda.cuDevicePrimaryCtxRetain(byref(again), device))
for _ in range(2):
    must(cuda.cuDevicePrimaryCtxRelease_v2(device))
    cuda.cuCtxSetCurrent(again)
    told.append(used())
print(*told)
"""


def test_a_context_that_somebody_still_holds_keeps_its_memory(container: Container, blind: dict[str, str]) -> None:
    """Only the last of its references ends it."""
    assert tried(container, ENDS + HELD, "linear", **blind) == "512 512 0"


GRAPH = """
import os
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
graph, run = c_void_p(), c_void_p()
asked = ctypes.create_string_buffer(struct.pack("iiii", 1, 0, 1, 0) + bytes(88) + struct.pack("QQ", 1024 * MIB, 0))
assert cuda.cuGraphCreate(byref(graph), 0) == 0
assert cuda.cuGraphAddMemAllocNode(byref(c_void_p()), graph, None, c_size_t(0), asked) == 0
assert cuda.cuGraphInstantiateWithFlags(byref(run), graph, c_ulonglong(0)) == 0
os.environ["FAKE_CUDA_FAILS"] = "cuGraphExecDestroy"
refused = cuda.cuGraphExecDestroy(run)
taken = linear(cuda)
print(refused, taken, cuda.cuGraphLaunch(run, None))
"""


def test_a_graph_that_the_driver_does_not_destroy_is_held_to_the_limit_when_it_runs(
    container: Container, blind: dict[str, str]
) -> None:
    """Its memory is taken when it runs, and by then all of the limit is in use."""
    assert tried(container, GRAPH, **blind) == "1 4096 2"


LENT = """
import subprocess
token = ctypes.create_string_buffer(64)
lent = linear()
must(cuda.cuIpcGetMemHandle(token, lent))
borrows = [sys.argv[2], "borrow", token.raw.hex(), "-1", "0"]
with subprocess.Popen(borrows, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as borrower:
    borrower.stdout.readline()
    told = []
    for failing in (end, "nothing"):
        os.environ["FAKE_CUDA_FAILS"] = failing
        told += [cuda[end](lent) != 0, used()]
    borrower.communicate()
print(*told, used())
"""


def test_who_has_memory_mapped_pays_for_it_once_its_maker_could_free_it_though_not_at_first(
    container: Container, blind: dict[str, str]
) -> None:
    assert tried(container, ENDS + LENT, "lent", container.tools.folder / "probe", **blind) == "True 512 False 512 0"
