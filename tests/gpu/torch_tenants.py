"""Sections of `broker.py`: PyTorch programs as tenants of one card."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import HERE, finish
from grants import Node
from torch_rows import torch_program, without_torch

GROUPS = (
    ("two layers", ("layer", "layer"), (30, 70)),
    ("two training steps", ("train", "train"), (30, 70)),
    ("four layers", ("layer", "layer", "layer", "layer"), (25, 25, 25, 25)),
    ("a light one beside a training step", ("small", "train"), (30, 70)),
)


def crowd(node: Node, works: tuple[str, ...], caps: tuple[int, ...] | None) -> list[float]:
    """Iterations a second of PyTorch programs measured at the same time; `caps` None: without the library."""
    go = node.root / f"go-{time.monotonic_ns()}"
    running = []
    for seat, work in enumerate(works):
        command = (sys.executable, HERE / "torch_work.py", "beside", work, node.bench.seconds, go)
        if caps is None:
            running.append(node.bench.start(*command, env=node.bench.environment()))
            continue
        key = f"crowd-{seat}-{caps[seat]}"
        node.grant(key, cores=caps[seat])
        running.append(node.begin(key, *command, seat=seat))
    release(running, go)
    return [finish(each).get("rate", 0.0) for each in running]


def release(running: list[subprocess.Popen[str]], go: Path) -> None:
    """Once all say that they are ready."""
    for each in running:
        assert each.stdout is not None
        each.stdout.readline()
    fresh = go.with_suffix(".new")
    fresh.write_text(str(time.monotonic() + 0.5))
    fresh.replace(go)


def torch(node: Node) -> None:
    """PyTorch tenants: each what it is due, and together what they would have without limits."""
    if without_torch(node.bench):
        return
    solos = torch_program(node.bench, "speed", "layer,train,small", node.bench.seconds, env=node.bench.environment())
    for name, works, caps in (each for each in GROUPS if re.search(node.bench.match, each[0])):
        native = crowd(node, works, None)
        got = crowd(node, works, caps)
        speeds = [rate / solos[work]["rate"] * 100 for rate, work in zip(got, works, strict=True)]
        due = [min(100.0, cap / solos[work]["busy"]) for cap, work in zip(caps, works, strict=True)]
        total = sum(got[i] / solos[works[i]]["rate"] for i in range(len(works)))
        before = sum(native[i] / solos[works[i]]["rate"] for i in range(len(works)))
        # Of programs bound by their hosts one may be twice as fast as the next: each is held against itself, native.
        ok = all(
            abs(part / ideal - 1) <= 0.04 if ideal < 99 else rate >= 0.96 * free
            for part, ideal, rate, free in zip(speeds, due, got, native, strict=True)
        )
        node.bench.add(
            "torch",
            f"{name}, {'/'.join(map(str, caps))}",
            " ".join(f"{part:.0f} (due {ideal:.0f})" for part, ideal in zip(speeds, due, strict=True)),
            "capped: within 4 %; others: as without",
            ok,
            native=native,
            got=got,
            solos=solos,
        )
        node.bench.add(
            "torch",
            f"{name}: together",
            f"{total * 100:.0f} of {before * 100:.0f} without limits",
            ">= 98 %",
            total >= 0.98 * before,
        )


def serve(node: Node) -> None:
    """PyTorch: requests of high priority beside training of low priority."""
    if without_torch(node.bench):
        return
    node.grant("server", priority=0)
    node.grant("trainer", priority=1)
    told: list[dict[str, Any]] = []
    for beside in (False, True):
        go = node.root / f"go-serve-{beside}"
        script, seconds = HERE / "torch_work.py", node.bench.seconds
        running = [node.begin("server", sys.executable, script, "serve", seconds, go)]
        if beside:
            running.append(node.begin("trainer", sys.executable, script, "beside", "train", seconds, go, seat=1))
        release(running, go)
        answers = [finish(each) for each in running]
        told.append(answers[0])
    ratio = told[1]["p99_ms"] / told[0]["p99_ms"]
    measured = f"p99 {told[1]['p99_ms']:.2f} ms, alone {told[0]['p99_ms']:.2f}"
    node.bench.add("serve", "PyTorch layer beside training", measured, "<= 1.3 x alone", ratio <= 1.3, told=told)
