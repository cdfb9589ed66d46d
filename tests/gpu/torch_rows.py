"""Sections of `limits.py`: PyTorch programs that know nothing of any limit."""

import re
import statistics
import subprocess
import sys
from typing import Any

from bench import HERE, Bench, finish


def without_torch(bench: Bench) -> bool:
    """Says so where PyTorch cannot be measured."""
    command = [sys.executable, "-c", "import torch"]
    missing = bench.simulated or subprocess.run(command, capture_output=True, check=False).returncode
    if missing:
        bench.add("torch", "PyTorch", "not here", "", None)
    return bool(missing)


def torch_program(bench: Bench, *words: object, env: dict[str, str]) -> dict[str, Any]:
    return finish(bench.start(sys.executable, HERE / "torch_work.py", *words, env=env), 120)


def fill(bench: Bench) -> None:
    """PyTorch fills its slice, is refused, and goes on."""
    if without_torch(bench):
        return
    for label, extra in (
        ("default", {}),
        ("expandable_segments", {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ("cudaMallocAsync", {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}),
    ):
        got = torch_program(bench, "fill", env=bench.environment(memory="4g") | extra)
        ok = bool(got.get("oom") and got.get("goes_on") and got.get("total_mib") == 4096)
        ok = ok and got.get("nvml_mib", 1e9) <= 4160
        bench.add(
            "torch",
            f"fill to OOM, {label}",
            f"{got.get('nvml_mib')} MiB",
            "OutOfMemoryError, goes on, <= 4160",
            ok,
            **got,
        )


def torch_speed(bench: Bench) -> None:
    """PyTorch: steps a second at a limit, against what the card has room for."""
    if without_torch(bench):
        return
    works = ("layer", "train", "decode", "matmul")
    wanted = [
        (work, limit)
        for work in works
        for limit in (80, 50, 20)
        if re.search(bench.match, f"{work} at {limit}") and not (bench.quick and limit != 50)
    ]
    names = sorted({work for work, _ in wanted})
    solos = torch_program(bench, "speed", ",".join(names), bench.seconds, env=bench.environment())
    for work, limit in wanted:
        env = bench.environment(limit, memory="64g")
        got = torch_program(bench, "speed", work, bench.seconds, env=env).get(work)
        solo = solos.get(work)
        if got is None or solo is None:
            bench.add("torch", f"{work} at {limit}", "error", "", False, got=got, solos=solos)
            continue
        judge_speed(bench, work, limit, got, solo)


def paired(bench: Bench) -> None:
    """What the library costs where it holds nothing back: without it, without a limit of time, and at 99, in turn."""
    if without_torch(bench):
        return
    kinds = {
        "alone": bench.environment(),
        "no limit of time": bench.environment(0, memory="64g"),
        "limit 99": bench.environment(99, memory="64g"),
    }
    for work in ("train", "decode"):
        if not re.search(bench.match, work):
            continue
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(2 if bench.quick else 3):
            for kind, env in kinds.items():
                rates[kind].append(torch_program(bench, "speed", work, bench.seconds, env=env)[work]["rate"])
        alone = statistics.median(rates["alone"])
        scatter = (max(rates["alone"]) - min(rates["alone"])) / alone * 100
        for kind, most in (("no limit of time", 0.3), ("limit 99", 1.0)):
            lost = (1 - statistics.median(rates[kind]) / alone) * 100
            measured = f"{lost:+.2f} % (alone scatters by {scatter:.1f})"
            bench.add("paired", f"{work}, {kind}", measured, f"<= {most} % lost", lost <= most, rates=rates)


def judge_speed(bench: Bench, work: str, limit: int, got: dict[str, Any], solo: dict[str, Any]) -> None:
    occupied = solo["busy"] * 100
    ideal = min(100.0, limit / occupied * 100)
    speed = got["rate"] / solo["rate"] * 100
    measured, target, ok = f"{speed:.1f} (ideal {ideal:.1f})", "within 4 % of ideal", abs(speed / ideal - 1) <= 0.04
    if ideal == 100.0:
        target, ok = ">= 96 % of solo", speed >= 96
    elif work == "matmul":  # alone it is held by the card's power, throttled it clocks higher: its time counts
        used = got["occupied"] * 100
        measured = f"{used:.1f} of the time ({speed:.1f} of speed)"
        target, ok = f"{limit} +- 2 of the time", abs(used - limit) <= 2
    name = f"{work} at {limit} (alone {occupied:.0f} % busy)"
    bench.add("torch", name, measured, target, ok, got=got, solo=solo)
