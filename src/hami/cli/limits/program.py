"""The measuring program (`native/probe`), run under a limit, and what its answers say.

`hami limits check` and the scripts under tests/gpu share it. It knows the standard library alone, so that those run
where nothing is installed.
"""

import json
import os
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
ROUTES = (
    "linear", "small", "pitch", "managed", "async", "async_free_sync", "own_pool", "graph_node", "captured", "vmm",
    "vmm_mapped", "vmm_retained", "array", "array3d", "mipmap", "context", "module", "library", "heap", "fifo",
    "async_ptds", "external", "mixed",
)  # fmt: skip
"""Ways to take memory that the program knows, and all of those that can be mixed."""
STAY = ("heap", "fifo")
"""Those that take for as long as the context is there: nothing can be given back and taken again."""
OURS = ("CUDA_DEVICE_", "CUDA_TASK_PRIORITY", "GPU_CORE_UTILIZATION_POLICY", "LD_PRELOAD")
"""Variables that set a limit by hand: none of them is passed on by accident."""
DEVICE = "PROBE_DEVICE"
"""Which card it uses, as CUDA counts them; the first where it is not set."""


@dataclass
class Program:
    """Where it is, the library it can be run with, and a folder for ledgers."""

    path: Path
    library: Path
    work: Path
    simulated: Path | None = None
    """Folder of the simulated libraries, where they are not on the loader's path anyway."""
    rounds_a_ns: str | None = None
    """How much work a nanosecond is, measured once: then all runs do the same."""
    card: int | None = None

    def environment(self, limit: int | None = None, memory: str | None = None, tenant: str = "one") -> dict[str, str]:
        """With `limit` or `memory` the library is preloaded, and holds whatever the container is held to by itself."""
        env = {key: value for key, value in os.environ.items() if not key.startswith(OURS)} | self.fixed()
        if self.simulated:
            env |= {"LD_LIBRARY_PATH": str(self.simulated), "PROBE_SIMULATED": "1"}
        if limit is not None or memory is not None:
            env["LD_PRELOAD"] = str(self.library)
            env["CUDA_DEVICE_MEMORY_SHARED_CACHE"] = str(self.work / f"ledger-{tenant}")
            env["GPU_CORE_UTILIZATION_POLICY"] = "force"
            env["CUDA_DEVICE_SM_LIMIT"] = str(limit or 0)
            if memory:
                env["CUDA_DEVICE_MEMORY_LIMIT"] = memory
        return env

    def fixed(self) -> dict[str, str]:
        rounds = {"PROBE_ROUNDS_A_NS": self.rounds_a_ns} if self.rounds_a_ns else {}
        return rounds if self.card is None else {**rounds, DEVICE: str(self.card)}

    def start(self, *words: object, env: dict[str, str]) -> "subprocess.Popen[str]":
        command = [str(word) for word in words]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def probe(self, *words: object, env: dict[str, str], timeout: float = 90) -> Answer:
        return finish(self.start(self.path, *words, env=env), timeout)


def finish(process: "subprocess.Popen[str]", timeout: float = 90) -> Answer:
    """The last line of JSON that it said; `error` where there is none, `stderr` where it said something there."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return {"error": f"no end after {timeout} s", "stderr": err[-500:]}
    except BaseException:
        with process:  # whoever ends this command leaves no program on the card
            process.kill()
        raise
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        return {"error": f"exit {process.returncode}", "stderr": err[-800:]}
    answer: Answer = json.loads(lines[-1])
    if err.strip():
        answer["stderr"] = err[-4000:]
    return answer


def steady(got: Answer, skip_s: float, until_s: float | None = None) -> float:
    """Launches a second, the first `skip_s` left out and the last window, which is cut short."""
    tenths: list[int] = got.get("tenths", [])[int(skip_s * 10) : -1 if until_s is None else int(until_s * 10)]
    return sum(tenths) / len(tenths) * 10 if tenths else 0.0


def spread(got: Answer, skip_s: float) -> float:
    """Coefficient of variation of 1 s windows, percent."""
    tenths: list[int] = got.get("tenths", [])[int(skip_s * 10) :]
    windows = [sum(tenths[at : at + 10]) for at in range(0, len(tenths) - 9, 5)]
    if len(windows) < 2 or not statistics.mean(windows):
        return 0.0
    return statistics.pstdev(windows) / statistics.mean(windows) * 100
