"""The driver by ctypes alone, as a program without the runtime has it: a card, places for memory, rates of launches."""

import ctypes
import os
import struct
import time
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint64, c_ulonglong, c_void_p

MIB = 1 << 20
SPIN = b"""
.version 6.4
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 ns)
{
 .reg .u64 %n, %a, %b; .reg .pred %p;
 ld.param.u64 %n, [ns];
 mov.u64 %a, %globaltimer;
again:
 mov.u64 %b, %globaltimer;
 sub.u64 %b, %b, %a;
 setp.lt.u64 %p, %b, %n;
 @%p bra again;
 ret;
}
"""
LOCAL = """
.version 6.4
.target sm_50
.address_size 64
.visible .entry local_{size}(.param .u64 at)
{{
 .local .align 4 .b8 store[{size}];
 .reg .u64 %a, %b, %c; .reg .u32 %r;
 ld.param.u64 %a, [at];
 mov.u64 %b, store;
 add.u64 %b, %b, %a;
 st.local.u32 [%b], 7;
 mov.u64 %c, store;
 ld.local.u32 %r, [%c];
 setp.eq.u32 %p, %r, 12345;
 @%p trap;
 ret;
}}
""".replace(".reg .u32 %r;", ".reg .u32 %r; .reg .pred %p;")


class Fault(Exception):
    pass


class Card:
    """The driver, NVML, and the primary context of the first card."""

    def __init__(self, name: str = "libcuda.so.1") -> None:
        self.cuda, self.nvml = ctypes.CDLL(name), ctypes.CDLL("libnvidia-ml.so.1")
        self.must("cuInit", 0)
        self.context = c_void_p()
        self.must("cuDevicePrimaryCtxRetain", byref(self.context), 0)
        self.must("cuCtxSetCurrent", self.context)
        self.nvml.nvmlInit_v2()
        self.handle = c_void_p()
        self.nvml.nvmlDeviceGetHandleByIndex_v2(0, byref(self.handle))

    def ask(self, name: str, *words: object) -> int:
        try:
            return int(getattr(self.cuda, name)(*words))
        except AttributeError:
            return 801

    def must(self, name: str, *words: object) -> None:
        code = self.ask(name, *words)
        if code != 0:
            raise Fault(f"{name}: {code}")

    def attribute(self, number: int) -> int:
        value = c_int(-1)
        self.ask("cuDeviceGetAttribute", byref(value), number, 0)
        return value.value

    def own_mib(self) -> int:
        count, shown = c_int(64), (ctypes.c_char * (24 * 64))()
        self.nvml.nvmlDeviceGetComputeRunningProcesses_v3(self.handle, byref(count), shown)
        each = [struct.unpack_from("IxxxxQ", shown, 24 * index) for index in range(max(count.value, 0))]
        return sum(size // MIB for pid, size in each if pid == os.getpid())

    def whole_mib(self) -> int:
        held = (c_ulonglong * 3)()
        self.nvml.nvmlDeviceGetMemoryInfo(self.handle, held)
        return held[2] // MIB

    def shown(self) -> list[int]:
        """MiB of this process, and of the whole card, by NVML."""
        time.sleep(0.2)
        return [self.own_mib(), self.whole_mib()]

    def info(self) -> list[int]:
        left, total = c_size_t(), c_size_t()
        self.must("cuMemGetInfo_v2", byref(left), byref(total))
        return [left.value // MIB, total.value // MIB]

    def function(self, image: bytes, name: bytes = b"spin") -> c_void_p:
        module, function = c_void_p(), c_void_p()
        self.must("cuModuleLoadData", byref(module), image)
        self.must("cuModuleGetFunction", byref(function), module, name)
        return function

    def launch(self, function: c_void_p, value: int, stream: c_void_p | None = None, blocks: int = 1) -> int:
        word = c_uint64(value)
        words = (c_void_p * 1)(ctypes.cast(byref(word), c_void_p))
        return self.ask("cuLaunchKernel", function, blocks, 1, 1, 32, 1, 1, 0, stream, words, None)

    def graph_mib(self) -> list[int]:
        """MiB that the memory of graphs uses and has reserved, as the driver says."""
        said = []
        for attribute in (0, 2):
            value = c_uint64()
            self.ask("cuDeviceGetGraphMemAttribute", 0, attribute, byref(value))
            said.append(value.value // MIB)
        return said

    def stream(self) -> c_void_p:
        stream = c_void_p()
        self.must("cuStreamCreate", byref(stream), 1)
        return stream

    def buffer(self, mib: int) -> c_uint64:
        address = c_uint64()
        self.must("cuMemAlloc_v2", byref(address), c_size_t(mib * MIB))
        return address


def place(flags: int = 1) -> bytes:
    """Properties of 2 MiB pages on the first card; `flags` 1: may be exported as a descriptor."""
    return struct.pack("iiiiPQ", 1, flags, 1, 0, 0, 0)


def rate(card: Card, call: Callable[[], int], seconds: float, ahead: int = 64) -> float:
    """Calls a second, after half a second; at most so many are queued."""
    counts, begun = [0, 0], time.monotonic()
    since = begun + 0.5
    code = 0
    while code == 0 and (now := time.monotonic()) < since + seconds:
        for _ in range(ahead):
            code = code or call()
        card.must("cuCtxSynchronize")
        counts[now >= since] += ahead
    if code != 0:
        raise Fault(f"call: {code}")
    return counts[1] / (time.monotonic() - since)
