#!/usr/bin/env python3
"""One way round the library, tried with ctypes: `way.py NAME WORD...` prints one line of JSON.

What a driver lacks is told as an error, not guessed. `ways_round.py` runs each with and without the library.
"""

import ctypes
import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint64, c_ulonglong, c_void_p
from pathlib import Path

from by_ctypes import LOCAL, MIB, SPIN, Card, Fault, place, rate

# ---- memory ----


def linear(name: str) -> dict[str, object]:
    """How much the driver of that file gives, in pieces of 256 MiB, up to 8 GiB."""
    card, taken = Card(name), 0
    while taken < 32 and card.ask("cuMemAlloc_v2", byref(c_uint64()), c_size_t(256 * MIB)) == 0:
        taken += 1
    return {"taken_mib": taken * 256, "nvml": card.shown()}


def beside(name: str) -> dict[str, object]:
    """The same of another file, once the driver has started."""
    first = Card()
    try:
        other = ctypes.CDLL(name)
        return {"code": other.cuMemAlloc_v2(byref(c_uint64()), c_size_t(8192 * MIB)), "nvml": first.shown()}
    except AttributeError as fault:
        return {"denied": str(fault)[-60:]}


def asked(how: str) -> dict[str, object]:
    """The same by what the C library's own dlsym gives: that was asked for by a `handle`, or as the `next`."""
    card, taken, here = Card(), 0, ctypes.CDLL(None)
    handle = c_void_p(ctypes.CDLL("libc.so.6")._handle) if how == "handle" else c_void_p(-1)
    here.dlsym.restype = c_void_p
    look = ctypes.CFUNCTYPE(c_void_p, c_void_p, ctypes.c_char_p)(here.dlsym(handle, b"dlsym"))
    allocate = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t)(look(card.cuda._handle, b"cuMemAlloc_v2"))
    while taken < 32 and allocate(ctypes.addressof(c_uint64()), 256 * MIB) == 0:
        taken += 1
    return {"taken_mib": taken * 256, "nvml": card.shown()}


def exported() -> dict[str, object]:
    """Memory of which only a descriptor is left."""
    card, handle, fd = Card(), c_uint64(), c_int(-1)
    said: dict[str, object] = {"before": card.shown()}
    card.must("cuMemCreate", byref(handle), c_size_t(1024 * MIB), place(), c_ulonglong(0))
    card.must("cuMemExportToShareableHandle", byref(fd), handle, 1, c_ulonglong(0))
    said["exported"] = card.shown()
    card.must("cuMemRelease", handle)
    said |= {"released": card.shown(), "free": card.info(), "link": str(Path(f"/proc/self/fd/{fd.value}").readlink())}
    time.sleep(1.5)
    said["free_later"] = card.info()
    os.close(fd.value)
    said["closed"] = card.shown()
    return said


def dmabuf() -> dict[str, object]:
    """Memory that was freed, and of which a descriptor for other devices is left."""
    card = Card()
    said: dict[str, object] = {"supported": card.attribute(124), "before": card.shown()}
    address, fd = card.buffer(1024), c_int(-1)
    code = card.ask("cuMemGetHandleForAddressRange", byref(fd), address, c_size_t(1024 * MIB), 1, c_ulonglong(0))
    said["code"] = code
    if code == 0:
        said["free_code"] = card.ask("cuMemFree_v2", address)
        said["freed"] = card.shown()
        time.sleep(1.2)
        said["info"] = card.info()
        os.close(fd.value)
        said["closed"] = card.shown()
    return said


def retained() -> dict[str, object]:
    """Memory of which only a handle is left that was asked for by an address in its middle."""
    card, handle, again, at, size = Card(), c_uint64(), c_uint64(), c_uint64(), c_size_t(1024 * MIB)
    said: dict[str, object] = {"before": card.shown()}
    card.must("cuMemCreate", byref(handle), size, place(), c_ulonglong(0))
    card.must("cuMemAddressReserve", byref(at), size, c_size_t(0), c_uint64(0), c_ulonglong(0))
    card.must("cuMemMap", at, size, c_size_t(0), handle, c_ulonglong(0))
    said["code"] = card.ask("cuMemRetainAllocationHandle", byref(again), c_void_p(at.value + 512 * MIB))
    card.must("cuMemUnmap", at, size)
    card.must("cuMemRelease", handle)
    time.sleep(1.2)
    said |= {"same": again.value == handle.value, "released": card.shown(), "free": card.info()}
    said |= {"code_then": card.ask("cuMemRelease", again), "let_go": card.shown(), "free_then": card.info()}
    return said


def imported() -> dict[str, object]:
    """Memory of which only a handle is left that its own maker imported."""
    card, handle, again, fd = Card(), c_uint64(), c_uint64(), c_int(-1)
    said: dict[str, object] = {"before": card.shown()}
    card.must("cuMemCreate", byref(handle), c_size_t(1024 * MIB), place(), c_ulonglong(0))
    card.must("cuMemExportToShareableHandle", byref(fd), handle, 1, c_ulonglong(0))
    said["code"] = card.ask("cuMemImportFromShareableHandle", byref(again), c_void_p(fd.value), 1)
    card.must("cuMemRelease", handle)
    os.close(fd.value)
    time.sleep(1.2)
    said |= {"same": again.value == handle.value, "released": card.shown(), "free": card.info()}
    said |= {"code_then": card.ask("cuMemRelease", again), "let_go": card.shown(), "free_then": card.info()}
    return said


def destroyed_pool() -> dict[str, object]:
    """Memory of a pool that was destroyed meanwhile."""
    card, pool, address = Card(), c_void_p(), c_uint64()
    stream = card.stream()
    said: dict[str, object] = {"before": card.shown()}
    card.must("cuMemPoolCreate", byref(pool), struct.pack("iiii72x", 1, 0, 1, 0))
    card.must("cuMemAllocFromPoolAsync", byref(address), c_size_t(1024 * MIB), pool, stream)
    card.must("cuStreamSynchronize", stream)
    said |= {"code": card.ask("cuMemPoolDestroy", pool), "destroyed": card.shown(), "free": card.info()}
    said["code_then"] = card.ask("cuMemFreeAsync", address, stream)
    card.must("cuStreamSynchronize", stream)
    time.sleep(2.5)
    said |= {"let_go": card.shown(), "free_then": card.info()}
    return said


def freed_in_order() -> dict[str, object]:
    """Linear memory that is freed in the order of a stream which is busy for a second."""
    card = Card()
    function, stream, address = card.function(SPIN), card.stream(), card.buffer(1024)
    said: dict[str, object] = {"before": card.shown()}
    card.launch(function, 1_000_000_000, stream)
    said |= {"code": card.ask("cuMemFreeAsync", address, stream), "meanwhile": card.shown(), "free": card.info()}
    card.must("cuStreamSynchronize", stream)
    time.sleep(2.5)
    said |= {"let_go": card.shown(), "free_then": card.info()}
    return said


def captures() -> dict[str, object]:
    """Which questions about a stream that is captured, or another, spoil the capture; and what ends one. Codes."""
    card = Card()
    out = (ctypes.c_char * 64)()
    said: dict[str, object] = {}
    for name in ("nothing", "cuStreamGetCtx", "cuStreamGetCtx_v2", "cuStreamGetDevice", "cuStreamGetPriority",
                 "cuStreamIsCapturing", "cuStreamQuery", "of another: cuStreamGetCtx", "of another: cuStreamQuery",
                 "cuStreamDestroy_v2", "end twice"):  # fmt: skip
        stream, other, graph = card.stream(), card.stream(), c_void_p()
        card.must("cuStreamBeginCapture_v2", stream, 0)
        asked = other if name.startswith("of another") else stream
        call = name.removeprefix("of another: ")
        words = (out, ctypes.byref(out, 32)) if call == "cuStreamGetCtx_v2" else (out,)
        words = () if call in ("cuStreamQuery", "cuStreamDestroy_v2") else words
        code = 0 if name in ("nothing", "end twice") else card.ask(call, asked, *words)
        ended = None if name == "cuStreamDestroy_v2" else card.ask("cuStreamEndCapture", stream, byref(graph))
        again = card.ask("cuStreamEndCapture", stream, byref(graph)) if name == "end twice" else None
        said[name] = [each for each in (code, ended, again) if each is not None]
    card.must("cuCtxSynchronize")
    stream, graph = card.stream(), c_void_p()  # after the one that was destroyed, is another still captured?
    begun = card.ask("cuStreamBeginCapture_v2", stream, 0)
    said["afterwards"] = [begun, card.ask("cuStreamEndCapture", stream, byref(graph))]
    return said


def asked_meanwhile() -> dict[str, object]:
    """What the library asks while a stream is captured, in that mode and in the relaxed one: code, and of the end."""
    card = Card()
    out, other, events, pool = (ctypes.c_char * 64)(), card.stream(), [c_void_p(), c_void_p()], c_void_p()
    function = card.function(SPIN)
    for event in events:
        card.must("cuEventCreate", byref(event), 0)
        card.must("cuEventRecord", event, other)
    card.must("cuDeviceGetMemPool", byref(pool), 0)
    calls: dict[str, tuple[object, ...]] = {
        "cuStreamGetDevice": (other, out),
        "cuStreamQuery": (other,),
        "cuEventQuery": (events[0],),
        "cuEventElapsedTime": (out, *events),
        "cuEventRecord": (events[0], other),
        "cuMemPoolGetAttribute": (pool, 5, out),
        "cuMemPoolTrimTo": (pool, c_size_t(0)),
        "cuDeviceGetGraphMemAttribute": (0, 0, out),
        "cuDeviceGraphMemTrim": (0,),
        "cuFuncGetAttribute": (out, 3, function),
        "cuCtxGetLimit": (out, 0),
        "cuMemGetInfo_v2": (out, ctypes.byref(out, 8)),
        "cuMemAllocAsync": (out, c_size_t(MIB), other),
        "cuModuleLoadData": (out, SPIN),
    }
    card.must("cuCtxSynchronize")
    said: dict[str, object] = {}
    for name, words in calls.items():
        for mode in (0, 2):
            stream, graph, kept = card.stream(), c_void_p(), c_int(mode)
            card.must("cuStreamBeginCapture_v2", stream, 0)
            card.must("cuThreadExchangeStreamCaptureMode", byref(kept))
            code = card.ask(name, *words)
            card.must("cuThreadExchangeStreamCaptureMode", byref(kept))
            said[f"{name}{', relaxed' if mode else ''}"] = [code, card.ask("cuStreamEndCapture", stream, byref(graph))]
    return said


def local(size: str) -> dict[str, object]:
    """A kernel's local memory, which the card takes for all its threads when it is launched for the first time."""
    card, loaded, bytes_a_thread = Card(), c_int(-1), c_int(-1)
    said: dict[str, object] = {"before": card.shown()}
    function = card.function(LOCAL.format(size=size).encode(), f"local_{size}".encode())
    card.ask("cuFuncIsLoaded", byref(loaded), function)
    said["loaded_before"] = loaded.value
    said["attribute"] = [card.ask("cuFuncGetAttribute", byref(bytes_a_thread), 3, function), bytes_a_thread.value]
    card.ask("cuFuncIsLoaded", byref(loaded), function)
    said |= {"loaded_then": loaded.value, "found": card.shown()}
    said |= {"launched": [card.launch(function, 16), card.ask("cuCtxSynchronize")], "after": card.shown()}
    said |= {"multiprocessors": card.attribute(16), "threads": card.attribute(39)}
    time.sleep(1.2)
    said["taken_then"] = card.ask("cuMemAlloc_v2", byref(c_uint64()), c_size_t(2048 * MIB))
    return said


def pageable() -> dict[str, object]:
    """Memory of malloc, brought onto the card."""
    card = Card()
    said: dict[str, object] = {str(number): card.attribute(number) for number in (88, 89, 99, 100, 132)}
    if card.attribute(88) == 1:
        area = mmap.mmap(-1, 1024 * MIB)
        area.write(b"\1" * (1024 * MIB))
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        said["before"] = card.shown()
        said["code"] = card.ask("cuMemPrefetchAsync", c_uint64(address), c_size_t(1024 * MIB), 0, None)
        said["synchronize"] = card.ask("cuCtxSynchronize")
        said["after"] = card.shown()
    return said


def managed_pool() -> dict[str, object]:
    """A pool of managed memory without a place of its own, brought onto the card."""
    card, pool, address, held = Card(), c_void_p(), c_uint64(), c_uint64()
    properties = struct.pack("iiiiPQ", 2, 0, 0, 0, 0, 0) + bytes(56)
    code = card.ask("cuMemPoolCreate", byref(pool), properties)
    said: dict[str, object] = {"created": code, "before": card.shown()}
    if code == 0:
        stream = card.stream()
        said["taken"] = card.ask("cuMemAllocFromPoolAsync", byref(address), c_size_t(1024 * MIB), pool, stream)
        card.ask("cuMemsetD8Async", address, 1, c_size_t(1024 * MIB), stream)
        card.must("cuCtxSynchronize")
        card.ask("cuMemPoolGetAttribute", pool, 5, byref(held))
        said |= {"reserved_mib": held.value // MIB, "after": card.shown(), "free": card.info()}
    return said


def graphs(how: str) -> dict[str, object]:
    """Two graphs whose memory nodes take 1 GiB each and give it back: run one after the other, then `how`."""
    card = Card()
    spin, streams, made = card.function(SPIN), [card.stream(), card.stream()], []
    for stream in streams:
        graph, run, address = c_void_p(), c_void_p(), c_uint64()
        card.must("cuStreamBeginCapture_v2", stream, 2)
        card.must("cuMemAllocAsync", byref(address), c_size_t(1024 * MIB), stream)
        card.must("cuMemsetD8Async", address, 1, c_size_t(1024 * MIB), stream)
        card.launch(spin, 300_000_000, stream)
        card.must("cuMemFreeAsync", address, stream)
        card.must("cuStreamEndCapture", stream, byref(graph))
        card.must("cuGraphInstantiateWithFlags", byref(run), graph, c_ulonglong(0))
        made.append(run)
    said: dict[str, object] = {"before": card.shown()}
    for run, stream in zip(made, streams, strict=True):
        card.must("cuGraphLaunch", run, stream)
        said["running"] = card.graph_mib()
        card.must("cuCtxSynchronize")
    said["one_by_one"] = [*card.shown(), *card.graph_mib()]
    used = streams if how == "beside" else [streams[0]] * 2
    said["codes"] = [card.ask("cuGraphLaunch", run, stream) for run, stream in zip(made, used, strict=True)]
    said["at_once"] = [*card.shown(), *card.graph_mib()]
    card.must("cuCtxSynchronize")
    said["ended"] = [*card.shown(), *card.graph_mib()]
    return said


def torch_start() -> dict[str, object]:
    """What a program of PyTorch takes before it has done anything, and how fast it launches small kernels then."""
    begun = time.monotonic()
    import torch

    imported = time.monotonic()
    some = torch.ones(1024, device="cuda")
    for each in (torch.sin, torch.sort, torch.cumsum, torch.softmax):
        each(some) if each in (torch.sin, torch.sort) else each(some, 0)
    product = torch.nn.Linear(1024, 1024, device="cuda")(some)
    torch.cuda.synchronize()
    warm = time.monotonic()
    for _ in range(20_000):
        product = torch.sin(product)
    torch.cuda.synchronize()
    said = {"import_s": round(imported - begun, 1), "warm_s": round(warm - imported, 2)}
    return said | {"ns_a_launch": round((time.monotonic() - warm) / 20_000 * 1e9), "nvml": Card().shown()}


# ---- time ----


def spins(how: str, seconds: str) -> dict[str, object]:
    """Kernels of 1 ms a second: by a plain stream, or by one of a green context of all multiprocessors."""
    card = Card()
    spin, stream = card.function(SPIN), card.stream()
    if how != "plain":
        resource, description, green = (ctypes.c_char * 1024)(), c_void_p(), c_void_p()
        card.must("cuDeviceGetDevResource", 0, resource, 1)
        card.must("cuDevResourceGenerateDesc", byref(description), resource, 1)
        card.must("cuGreenCtxCreate", byref(green), description, 0, 1)
        card.must("cuGreenCtxStreamCreate", byref(stream), green, 1, 0)
        if how == "current":
            inner = c_void_p()
            card.must("cuCtxFromGreenCtx", byref(inner), green)
            card.must("cuCtxSetCurrent", inner)
            spin = card.function(SPIN)
    return {"a_second": rate(card, lambda: card.launch(spin, 1_000_000, stream), float(seconds), 16)}


def copies(how: str, seconds: str) -> dict[str, object]:
    """Copies of 256 MiB a second, from the card to itself."""
    card, size = Card(), 256 * MIB
    source, target, stream = card.buffer(256), card.buffer(256), card.stream()
    hint = (
        struct.pack("iiQQQii", 1, 0, source.value, 0, 0, 1, 0),
        struct.pack("iiQQQii", 1, 0, target.value, 0, 0, 1, 0),
    )
    batch = hint[0] + hint[1] + struct.pack("QQQiI", size // 1024, 1024, 1, 1, 0)
    solid = struct.pack("QQQQiiPQPPQQ", 0, 0, 0, 0, 2, 0, 0, source.value, 0, card.context.value, 1024, size // 1024)
    solid += struct.pack("QQQQiiPQPPQQ", 0, 0, 0, 0, 2, 0, 0, target.value, 0, card.context.value, 1024, size // 1024)
    solid += struct.pack("QQQ", 1024, size // 1024, 1)
    calls: dict[str, Callable[[], int]] = {
        "plain": lambda: card.ask("cuMemcpyDtoDAsync_v2", target, source, c_size_t(size), stream),
        "peer": lambda: card.ask(
            "cuMemcpyPeerAsync", target, card.context, source, card.context, c_size_t(size), stream
        ),
        "peer3d": lambda: card.ask("cuMemcpy3DPeerAsync", solid, stream),
        "hinted": lambda: card.ask("cuMemcpyWithAttributesAsync", target, source, c_size_t(size), bytes(64), stream),
        "hinted3d": lambda: card.ask("cuMemcpy3DWithAttributesAsync", batch, c_ulonglong(0), stream),
        "batch3d": lambda: card.ask("cuMemcpy3DBatchAsync_v2", c_size_t(1), batch, c_ulonglong(0), stream),
    }
    return {"a_second": rate(card, calls[how], float(seconds))}


_ALL = (linear, beside, asked, exported, dmabuf, retained, imported, destroyed_pool, freed_in_order, captures,
        asked_meanwhile, local, pageable, managed_pool, graphs, torch_start, spins, copies)  # fmt: skip
WAYS: dict[str, Callable[..., dict[str, object]]] = {each.__name__: each for each in _ALL}

if __name__ == "__main__":
    try:
        answer = WAYS[sys.argv[1]](*sys.argv[2:])
    except Fault as fault:
        answer = {"error": str(fault)}
    print(json.dumps(answer))
