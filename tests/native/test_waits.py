"""A host that waits for the card is seen to: it has nothing queued whenever it launches, and wants turns anyway."""

import re
import sys

import pytest

from hami.wire.policy import CorePolicy

from .node import Node, node

__all__ = ["node"]

WAITS = """
import ctypes, time
cuda, H = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p
def must(result):
    assert result == 0, result
context, module, spin, stream, event, memory = H(), H(), H(), H(), H(), ctypes.c_uint64()
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuModuleLoadData(ctypes.byref(module), b".version 6.4\\n.visible .entry spin(.param .u64 rounds)\\n{\\n}\\n"))
must(cuda.cuModuleGetFunction(ctypes.byref(spin), module, b"spin"))
must(cuda.cuStreamCreate(ctypes.byref(stream), 0))
must(cuda.cuEventCreate(ctypes.byref(event), 0))
must(cuda.cuMemAlloc_v2(ctypes.byref(memory), 4096))
host = ctypes.create_string_buffer(4096)
length = ctypes.c_int64(30_000_000)
parameters = (H * 1)(ctypes.addressof(length))
def launch():
    must(cuda.cuLaunchKernel(spin, 256, 1, 1, 32, 1, 1, 0, stream, parameters, None))
    must(cuda.cuEventRecord(event, stream))
def asked(call):
    while (result := call()) == 600:  # CUDA_ERROR_NOT_READY
        pass
    return result
WAYS = [
    lambda: asked(lambda: cuda.cuStreamQuery(stream)),
    lambda: asked(lambda: cuda.cuEventQuery(event)),
    lambda: cuda.cuCtxSynchronize(),
    lambda: cuda.cuCtxSynchronize_v2(context),
    lambda: cuda.cuStreamSynchronize(stream),
    lambda: cuda.cuEventSynchronize(event),
    lambda: cuda.cuMemcpyDtoH_v2(host, memory, ctypes.c_size_t(4096)),
    lambda: cuda.cuMemcpyDtoHAsync_v2(host, memory, ctypes.c_size_t(4096), stream),
]
for way in WAYS:
    launch()
    must(way())      # the card is at work
    must(cuda.cuStreamSynchronize(stream))  # it is not
for look in (lambda: cuda.cuStreamQuery(stream), lambda: cuda.cuEventQuery(event)):
    launch()
    assert look() == 600  # and goes on
print(len(WAYS), flush=True)
time.sleep(2.5)  # what has been is told once a second
"""


@pytest.mark.realtime
def test_each_way_to_wait_for_the_card_is_seen_and_none_that_finds_it_done(node: Node) -> None:
    grant = node.grant("one", mem=None, cores=50, core_policy=CorePolicy.FORCE)
    node.start_agent()
    process = node.start(grant, sys.executable, "-c", WAITS, PROBE_ROUNDS_A_NS="1", LIBCUDA_LOG_LEVEL="3")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert re.findall(r"(\d+) waits for the card", said)[-1:] == [out.strip()]
