"""PyTorch programs that know nothing of any limit; `limits.py` runs them. One line of JSON on stdout.

torch_work.py fill                    fills the card, catches the error, frees, goes on
torch_work.py beside WORK SECONDS GO  runs until the file GO is there, is measured from the time in it on
torch_work.py serve SECONDS GO        the same with requests, a layer each and 3 ms of rest: how long they take
torch_work.py cards SECONDS [idle]    kernels of some 0.2 ms on each card at the same time; kernels a second
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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


def decode() -> Callable[[], object]:
    """One token of a small model, six layers, batch 4, 512 tokens kept: many short kernels that read all weights."""
    torch.manual_seed(0)
    width, heads, kept = 1024, 16, 512
    blocks = [
        [torch.randn(width, n, device="cuda", dtype=torch.half) * 0.02 for n in (3 * width, width, 4 * width)]
        + [torch.randn(4 * width, width, device="cuda", dtype=torch.half) * 0.02]
        for _ in range(6)
    ]
    caches = [torch.randn(2, 4, heads, kept, width // heads, device="cuda", dtype=torch.half) for _ in blocks]
    token = torch.randn(4, 1, width, device="cuda", dtype=torch.half)

    def go() -> object:
        x = token
        with torch.no_grad():
            for (qkv, out, up, down), (keys, values) in zip(blocks, caches, strict=True):
                q = (x @ qkv)[..., :width].view(4, 1, heads, width // heads).transpose(1, 2)
                mixed = torch.nn.functional.scaled_dot_product_attention(q, keys, values)
                x = torch.nn.functional.layer_norm(x + mixed.transpose(1, 2).reshape(4, 1, width) @ out, (width,))
                x = torch.nn.functional.layer_norm(x + torch.nn.functional.gelu(x @ up) @ down, (width,))
        return x

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


CYCLES_A_S = 2e9
"""Of a card's clock, at most."""


def queued(go: Callable[[], object], counts: Sequence[int] = (8, 4, 2, 1), each_s: float = 0.01) -> float:
    """
    Seconds of one iteration's launches queued back to back: behind a kernel that runs until the host is through, for
    which it has `each_s` an iteration.
    """
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for count in counts:
        torch.cuda.synchronize()
        torch.cuda._sleep(int(count * each_s * CYCLES_A_S))
        start.record()
        for _ in range(count):
            go()
        end.record()
        ahead = not start.query()
        end.synchronize()
        if ahead:
            return start.elapsed_time(end) / count / 1000
    raise RuntimeError("the host was not ahead of the card")


WORKS = {"layer": layer, "train": train, "decode": decode, "matmul": matmul, "small": small}


def warmed(work: str, seconds: float = 1.5) -> Callable[[], object]:
    """Ready, and the limiter settled."""
    go = WORKS[work]()
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        go()
        torch.cuda.synchronize()
    return go


def rate_of(go: Callable[[], object], seconds: float) -> float:
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        go()
        count += 1
        if count % 8 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    return count / (time.monotonic() - begun)


def wait_for(go_file: str, meanwhile: Callable[[], object]) -> None:
    """Until the time in the file, which somebody writes once all are ready."""
    there = Path(go_file)
    while not there.exists():
        meanwhile()
        torch.cuda.synchronize()
    begin = float(there.read_text())
    while time.monotonic() < begin:
        meanwhile()
        torch.cuda.synchronize()


def beside(work: str, seconds: float, go_file: str) -> dict[str, object]:
    go = warmed(work)
    print("ready", flush=True)
    wait_for(go_file, go)
    rate = rate_of(go, seconds)
    rate_of(go, 1.0)  # nobody is measured alone at the end
    return {"work": work, "rate": rate}


def serve(seconds: float, go_file: str) -> dict[str, object]:
    go = warmed("layer")
    print("ready", flush=True)
    wait_for(go_file, go)
    took, begun = [], time.monotonic()
    while time.monotonic() - begun < seconds:
        at = time.perf_counter()
        go()
        torch.cuda.synchronize()
        took.append((time.perf_counter() - at) * 1e3)
        time.sleep(0.003)
    took.sort()
    return {"requests": len(took), "p50_ms": took[len(took) // 2], "p99_ms": took[len(took) * 99 // 100]}


def cards(seconds: float, idle: bool) -> dict[str, object]:
    """All cards that are seen, in one process. `idle`: nobody is held, so it can be said what each kernel takes."""
    rates = [0.0] * torch.cuda.device_count()
    queued_s = [0.0] * len(rates)
    begin = threading.Barrier(len(rates), timeout=20)

    def on(card: int) -> None:
        with torch.cuda.device(card):
            rate_of(lambda: torch.cuda._sleep(400_000), 1.5)
            if idle:
                queued_s[card] = queued(lambda: torch.cuda._sleep(400_000), (64, 16), 2e-4)
            begin.wait()
            rates[card] = rate_of(lambda: torch.cuda._sleep(400_000), seconds)

    threads = [threading.Thread(target=on, args=(card,)) for card in range(len(rates))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    totals = [torch.cuda.mem_get_info(card)[1] >> 20 for card in range(len(rates))]
    return {"rates": rates, "queued_s": queued_s, "totals_mib": totals}


def main(words: list[str]) -> int:
    match words:
        case ["fill"]:
            answer = fill()
        case ["beside", work, seconds, go_file]:
            answer = beside(work, float(seconds), go_file)
        case ["serve", seconds, go_file]:
            answer = serve(float(seconds), go_file)
        case ["cards", seconds, *idle]:
            answer = cards(float(seconds), idle == ["idle"])
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
