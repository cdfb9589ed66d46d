"""PyTorch programs that know nothing of any limit; `limits.py` runs them. One line of JSON on stdout.

torch_work.py fill                   fills the card, catches the error, frees, goes on
torch_work.py speed WORK SECONDS     WORK: layer, train, matmul, small; iterations a second
"""

import json
import os
import sys
import time
from collections.abc import Callable

import torch


def own_mib() -> float:
    import pynvml

    pynvml.nvmlInit()
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    for process in pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle):
        if process.pid == os.getpid():
            return process.usedGpuMemory / 2**20
    return -1.0


def fill() -> dict[str, object]:
    kept, oom = [], False
    free, total = torch.cuda.mem_get_info()
    try:
        while len(kept) < 1000:
            kept.append(torch.empty(32 << 20, dtype=torch.float32, device="cuda"))
    except torch.OutOfMemoryError:
        oom = True
    try:
        held = own_mib()
    except Exception as fault:  # pynvml may be missing
        held = -2.0
        print(fault, file=sys.stderr)
    taken = len(kept) * 128
    del kept[-4:]
    torch.cuda.empty_cache()
    x = torch.ones(1 << 20, device="cuda")
    return {
        "oom": oom,
        "taken_mib": taken,
        "nvml_mib": held,
        "total_mib": total >> 20,
        "free_mib": free >> 20,
        "goes_on": float(x.sum()) == float(1 << 20),
    }


def layer() -> Callable[[], object]:
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True, dropout=0.0).cuda().half().eval()
    x = torch.randn(8, 128, 512, device="cuda", dtype=torch.half)

    def go() -> object:
        with torch.no_grad():
            return block(x)

    return go


def train() -> Callable[[], object]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(1024, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 4096),
        torch.nn.ReLU(),
        torch.nn.Linear(4096, 1024),
    ).cuda()
    best = torch.optim.AdamW(net.parameters(), lr=1e-4)
    x = torch.randn(256, 1024, device="cuda")

    def go() -> object:
        best.zero_grad(set_to_none=True)
        loss = net(x).square().mean()
        loss.backward()
        best.step()
        return loss

    return go


def matmul() -> Callable[[], object]:
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.half)
    return lambda: a @ a


def small() -> Callable[[], object]:
    net = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(12))).cuda().half()
    x = torch.randn(16, 256, device="cuda", dtype=torch.half)

    def go() -> object:
        with torch.no_grad():
            return net(x)

    return go


def busy_fraction(go: Callable[[], object], rate: float) -> float:
    """Time of one iteration's kernels queued back to back, as a graph, times the rate."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        go()
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        go()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    start.record()
    for _ in range(20):
        graph.replay()
    end.record()
    end.synchronize()
    return min(1.0, start.elapsed_time(end) / 20 / 1000 * rate)


def speed(work: str, seconds: float) -> dict[str, object]:
    go = {"layer": layer, "train": train, "matmul": matmul, "small": small}[work]()
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:  # warm, and the limiter settled
        go()
        torch.cuda.synchronize()
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        go()
        count += 1
        if count % 8 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    rate = count / (time.monotonic() - begun)
    busy = 1.0
    if work != "train" and "LD_PRELOAD" not in os.environ:
        busy = busy_fraction(go, rate)
    elif "LD_PRELOAD" not in os.environ:
        busy = profiled(go, rate)
    return {"work": work, "rate": rate, "busy": busy, "occupied": rate * one_launch(go) if work == "matmul" else None}


def one_launch(go: Callable[[], object]) -> float:
    """Seconds that one call takes on the card at the speed it has under this limit: between two events, the median."""
    times = []
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(200):
        go()  # the card is busy while the host puts the rest behind it
        start.record()
        go()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return sorted(times)[4]  # where the limiter did not wait in between


def profiled(go: Callable[[], object], rate: float) -> float:
    """For what cannot be captured: the sum of its kernels' times by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as record:
        for _ in range(20):
            go()
        torch.cuda.synchronize()
    total_us = sum(event.self_device_time_total for event in record.key_averages())
    return min(1.0, total_us / 20 / 1e6 * rate)


def main(words: list[str]) -> int:
    answer = fill() if words[0] == "fill" else speed(words[1], float(words[2]))
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
