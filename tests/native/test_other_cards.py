"""Copies and graphs that run on another card than the current one are paid from the budget of the card they run on."""

import subprocess
import sys

import pytest

from .conftest import Container
from .test_ways_round import START, tried

pytestmark = pytest.mark.realtime

COPIES = """
import time
cuda = ctypes.CDLL("libcuda.so.1")
contexts = start(cuda, 2)
stream, addresses = c_void_p(), [c_uint64(), c_uint64()]
assert cuda.cuCtxSetCurrent(contexts[1]) == 0
assert cuda.cuStreamCreate(byref(stream), 1) == 0
for each in addresses:
    assert cuda.cuMemAlloc_v2(byref(each), c_size_t(100 << 20)) == 0
graph, nodes = c_void_p(), c_void_p()
to, at, size = *addresses, c_size_t(100 << 20)
assert cuda.cuStreamBeginCapture_v2(stream, 2) == 0
assert cuda.cuMemcpyDtoDAsync_v2(to, at, size, stream) == 0
assert cuda.cuStreamEndCapture(stream, byref(graph)) == 0
assert cuda.cuGraphInstantiateWithFlags(byref(nodes), graph, c_uint64(0)) == 0
assert cuda.cuCtxSetCurrent(contexts[0]) == 0
ways = {
    "stream": lambda: cuda.cuMemcpyDtoDAsync_v2(to, at, size, stream),
    "addresses": lambda: cuda.cuMemcpyDtoDAsync_v2(to, at, size, None),
    "peer": lambda: cuda.cuMemcpyPeerAsync(to, contexts[1], at, contexts[1], size, None),
    "peer in a stream": lambda: cuda.cuMemcpyPeerAsync(to, contexts[1], at, contexts[1], size, stream),
    "set": lambda: cuda.cuMemsetD8Async(to, 0, size, stream),
    "graph": lambda: cuda.cuGraphLaunch(nodes, stream),
}
copy, made, begun = ways[sys.argv[1]], 0, time.monotonic()
while time.monotonic() < begun + 2:
    assert copy() == 0
    made += time.monotonic() > begun + 1
current = c_void_p()
assert cuda.cuCtxGetCurrent(byref(current)) == 0 and current.value == contexts[0].value
print(made)
"""
COPY_S = 107e-6
"""Of 100 MiB, on the simulated driver."""
WAYS = ["stream", "addresses", "peer", "peer in a stream", "set", "graph"]


def limits(first: int, second: int) -> dict[str, str]:
    names = {"CUDA_DEVICE_SM_LIMIT_0": str(first), "CUDA_DEVICE_SM_LIMIT_1": str(second)}
    return {**names, "GPU_CORE_UTILIZATION_POLICY": "force", "LIBCUDA_LOG_LEVEL": "2"}


@pytest.mark.parametrize("way", WAYS)
def test_what_runs_on_a_limited_card_is_held_to_its_limit_though_another_is_current(
    container: Container, way: str
) -> None:
    share = int(tried(container, COPIES, way, **limits(100, 20))) * COPY_S
    assert 0.1 < share < 0.22


@pytest.mark.parametrize("way", WAYS)
def test_what_runs_on_a_card_without_a_limit_is_not_paid_by_the_current_one(container: Container, way: str) -> None:
    share = int(tried(container, COPIES, way, **limits(10, 100))) * COPY_S
    assert share > 0.5


IN_BULK = """
import time
cuda = ctypes.CDLL("libcuda.so.1")
contexts, stream, to, ns = start(cuda, 2), c_void_p(), c_uint64(), c_uint64(5000)
params = (c_void_p * 1)(ctypes.addressof(ns))
def kernel(context):
    assert cuda.cuCtxSetCurrent(context) == 0
    module, found = c_void_p(), c_void_p()
    assert cuda.cuModuleLoadData(byref(module), b"code") == 0
    assert cuda.cuModuleGetFunction(byref(found), module, b"spin") == 0
    return found
kernels = [kernel(each) for each in contexts]
def launch(card, stream):
    assert cuda.cuLaunchKernel(kernels[card], 1, 1, 1, 32, 1, 1, 0, stream, params, None) == 0
def clear():
    assert cuda.cuMemsetD8Async(to, 0, c_size_t(4096), stream) == 0
assert cuda.cuCtxSetCurrent(contexts[0]) == cuda.cuStreamCreate(byref(stream), 1) == 0
assert cuda.cuMemAlloc_v2(byref(to), c_size_t(1 << 20)) == 0
until = time.monotonic() + 4
while time.monotonic() < until:
    assert cuda.cuCtxSetCurrent(contexts[0]) == 0
    for each in range(5):
        launch(0, stream)
        clear()
    assert cuda.cuCtxSetCurrent(contexts[1]) == 0
    clear()
    launch(1, None)
"""


def test_what_runs_on_another_card_while_launches_there_are_measured_in_bulk_takes_no_lane_of_it(
    container: Container,
) -> None:
    """The next launch on the current card found it, and all lanes were given up, with a warning."""
    env = container.environment(**limits(50, 50))
    command = [sys.executable, "-c", START + IN_BULK]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
