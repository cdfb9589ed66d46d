"""Sections of `limits.py`: PyTorch programs that know nothing of any limit."""

import random
import re
import statistics
import subprocess
import sys
from typing import Any

from bench import HERE, Bench, finish
from torch_live import alone, begin, cores, interval


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


def paired(bench: Bench) -> None:
    """What the library costs where it holds nothing back: several processes without it, without a limit of time, and at
    99, all on the same two cores, one running at a time, in slices of 80 ms in any order."""
    if without_torch(bench):
        return
    works = [work for work in ("train", "decode") if re.search(bench.match, work)]
    count, rounds = (4, 6) if bench.quick else (6, 12)
    envs = {"alone": bench.environment(), "no limit of time": bench.environment(0, memory="64g")}
    envs["limit 99"] = bench.environment(99, memory="64g")
    programs = {kind: [begin(works, env) for _ in range(count)] for kind, env in envs.items()}
    everybody = [(kind, number) for kind in programs for number in range(count)]
    for kind, number in everybody:
        programs[kind][number].answer()
    for kind, number in everybody:
        programs[kind][number].pin(cores(1, 2))
    for work in works:
        rates: dict[tuple[str, int], list[float]] = {each: [] for each in everybody}
        for _ in range(rounds):
            for kind, number in random.sample(everybody, len(everybody)):
                rates[kind, number].append(alone(programs[kind][number], work, 0.08))
        judge_cost(bench, work, rates)
    said = {kind: [program.end()[-200:] for program in some] for kind, some in programs.items()}
    bench.add("paired", "processes of each kind, slices", f"{count}, {rounds}", "", None, said=said)


def judge_cost(bench: Bench, work: str, rates: dict[tuple[str, int], list[float]]) -> None:
    """A row holds when the whole interval is below its target, fails when the whole is above; else it says neither."""
    medians: dict[str, list[float]] = {}
    for (kind, _), each in rates.items():
        medians.setdefault(kind, []).append(statistics.median(each))
    base = medians["alone"]
    processes = (max(base) - min(base)) / statistics.median(base) * 100
    moments = statistics.median(statistics.pstdev(each) / statistics.mean(each) for each in rates.values()) * 100
    told = {f"{kind} {number}": [round(one, 2) for one in each] for (kind, number), each in rates.items()}
    for kind, most in (("no limit of time", 0.3), ("limit 99", 1.0)):
        lost, low, high = interval(base, medians[kind])
        measured = f"{lost:+.2f} % ({low:+.2f} to {high:+.2f})"
        ok = True if high <= most else False if low > most else None
        bench.add("paired", f"{work}, {kind}", measured, f"<= {most} % lost", ok, rates=told)
    scatter = f"processes by {processes:.1f} %, slices by {moments:.1f}"
    bench.add("paired", f"{work}: without the library it scatters", scatter, "", None)
