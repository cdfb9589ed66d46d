"""Sizes that no card has, that wrap when they are multiplied, or that mean something else than they say."""

import struct

import pytest

from .conftest import Container
from .test_odd_contexts import CONTEXTS
from .test_ways_round import tried

MIB = 1 << 20
START = CONTEXTS + "contexts = start(cuda)\nbefore = used()\n"
HUGE = [(1 << 64) - 1, (1 << 64) - 512, 1 << 63, (1 << 63) - 1, 1 << 62, 1 << 60, 1 << 51]
CALLS = {
    "linear": "cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(N))",
    "managed": "cuda.cuMemAllocManaged(byref(c_uint64()), c_size_t(N), 1)",
    "pitch": "cuda.cuMemAllocPitch_v2(byref(c_uint64()), byref(c_size_t()), c_size_t(N), c_size_t(1), 4)",
    "rows": "cuda.cuMemAllocPitch_v2(byref(c_uint64()), byref(c_size_t()), c_size_t(512), c_size_t(N), 4)",
    "both": "cuda.cuMemAllocPitch_v2(byref(c_uint64()), byref(c_size_t()), c_size_t(N), c_size_t(N), 4)",
    "async": "cuda.cuMemAllocAsync(byref(c_uint64()), c_size_t(N), None)",
    "vmm": "cuda.cuMemCreate(byref(c_uint64()), c_size_t(N), struct.pack('<IIIi16x', 1, 0, 1, 0), c_uint64(0))",
    "array": "cuda.cuArray3DCreate_v2(byref(c_void_p()), struct.pack('<QQQIII4x', N, 0, 0, 0x20, 4, 0))",
    "solid": "cuda.cuArray3DCreate_v2(byref(c_void_p()), struct.pack('<QQQIII4x', N, N, N, 0x20, 4, 0))",
    "mipmap": "cuda.cuMipmappedArrayCreate(byref(c_void_p()), struct.pack('<QQQIII4x', N, N, 0, 0x20, 4, 0), 99)",
    "external": "cuda.cuImportExternalMemory(byref(c_void_p()), struct.pack('<I4x16sQI68x', 1, b'', N, 0))",
    "stack": "cuda.cuCtxSetLimit(0, c_size_t(N))",
    "fifo": "cuda.cuCtxSetLimit(1, c_size_t(N))",
    "heap": "cuda.cuCtxSetLimit(2, c_size_t(N))",
}


@pytest.mark.parametrize("limit", ["4g", "4000000t", ""])
def test_what_no_card_has_is_refused_and_nothing_stays_charged(container: Container, limit: str) -> None:
    """Under a limit, under one that is larger than any card, and under none; what follows is had as before."""
    tries = "".join(f"    told['{name}', N] = {call}\n" for name, call in CALLS.items())
    code = (
        f"{START}told = {{}}\nfor N in {HUGE}:\n{tries}had = [each for each, result in told.items() if result == 0]\n"
    )
    code += "print(had, used() - before)\ntake(256)\nprint(used() - before)"
    env = {"CUDA_DEVICE_MEMORY_LIMIT": limit, "CUDA_DEVICE_SM_LIMIT": "50"}
    assert tried(container, code, **env) == "[] 0\n256"


def test_what_no_card_has_is_never_in_the_ledger(container: Container) -> None:
    """Without a limit it was, until the driver had refused it: meanwhile everybody else's memory was refused."""
    code = START + "".join(f"assert cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t({n})) != 0\n" for n in HUGE)
    tried(container, code, CUDA_DEVICE_MEMORY_LIMIT="", CUDA_DEVICE_SM_LIMIT="50")
    content = container.ledger.read_bytes()
    limit, percent, held, peak = struct.unpack_from(
        "<4q", content, content.index(container.bench.uuid(0).encode()) + 96
    )
    assert (limit, percent, held) == ((1 << 63) - 1, 50, 480 * MIB)
    assert peak < 1000 * MIB


def test_a_mipmap_of_no_levels_has_one_and_is_paid_for(container: Container) -> None:
    """The driver takes the nearest number that there can be."""
    shape = "struct.pack('<QQQIII4x', 4096, 4096, 0, 0x20, 1, 0)"
    code = f"{START}print(cuda.cuMipmappedArrayCreate(byref(c_void_p()), {shape}, 0), used() - before)"
    assert tried(container, code) == "0 64"


POOL = """
pool = c_void_p()
assert cuda.cuCtxSetCurrent(None) == 0
assert cuda.cuMemPoolCreate(byref(pool), struct.pack("<iiiiQQ56x", 2, 0, 0, 0, 0, 0)) == 0
assert cuda.cuCtxSetCurrent(contexts[0]) == 0
print(take256(pool), used() - before)
"""


def test_a_pool_of_managed_memory_that_was_made_without_a_context_is_held_to_the_limit(container: Container) -> None:
    take = "take256 = lambda pool: globals()['count'](lambda: cuda.cuMemAllocFromPoolAsync(byref(c_uint64()), "
    take += "c_size_t(256 * MIB), pool, None))\n"
    count = "def count(call):\n    n = 0\n    while n < 30 and call() == 0: n += 1\n    return n\n"
    assert tried(container, START + count + take + POOL) == "14 3584"


@pytest.mark.parametrize("dims", ["0xffffffff, 0xffffffff, 0xffffffff", "0, 0, 0", "-1, -1, -1"])
def test_a_grid_of_any_shape_is_launched_as_the_driver_says(container: Container, dims: str) -> None:
    code = START + "module, kernel = c_void_p(), c_void_p()\n"
    code += "cuda.cuModuleLoadData(byref(module), b'code')\ncuda.cuModuleGetFunction(byref(kernel), module, b'short')\n"
    code += f"print({{cuda.cuLaunchKernel(kernel, {dims}, 32, 1, 1, 0, None, None, None) for _ in range(500)}})"
    assert tried(container, code, CUDA_DEVICE_SM_LIMIT="50", GPU_CORE_UTILIZATION_POLICY="force") == "{0}"


GROWS = """
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
def rows():
    return cuda.cuMemAllocPitch_v2(byref(c_uint64()), byref(c_size_t()), c_size_t(513), c_size_t(65536), 4)
def pool():
    own = c_void_p()
    assert cuda.cuMemPoolCreate(byref(own), struct.pack("<iiii72x", 1, 0, 1, 0)) == 0
    return cuda.cuMemAllocFromPoolAsync(byref(c_uint64()), c_size_t(64 * MIB), own, None)
taken, fits = take(rows if sys.argv[1] == "rows" else pool) // 256, c_size_t(96 * MIB)
print(taken, cuda.cuMemAlloc_v2(byref(c_uint64()), fits), used())
"""


@pytest.mark.parametrize(("what", "told"), [("rows", "8 0 4192"), ("pool", "13 0 3996")])
def test_what_the_driver_takes_beyond_what_was_foreseen_is_undone_where_the_limit_does_not_allow_it(
    container: Container, blind: dict[str, str], what: str, told: str
) -> None:
    """Rows of 8 KiB where a KiB was foreseen, pools that grow by 300 MiB: the last one's first part would still fit."""
    driver = {"FAKE_CUDA_PITCH": "8192", "FAKE_CUDA_CHUNK_MIB": "300", "CUDA_DEVICE_MEMORY_LIMIT": "4196m"}
    assert tried(container, GROWS, what, **driver, **blind) == told
