"""Sections of `limits.py`: PyTorch programs that know nothing of any limit."""

import importlib.util
import sys
from typing import Any

from bench import HERE, Bench, finish


def without_torch(bench: Bench) -> bool:
    """Says so where PyTorch itself cannot be measured."""
    missing = bench.simulated is not None or importlib.util.find_spec("torch") is None
    if missing:
        bench.add("torch", "PyTorch", "not here", "", None)
    return missing


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
