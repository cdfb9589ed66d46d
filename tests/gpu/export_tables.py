#!/usr/bin/env python3
"""Which private tables of the driver (cuGetExportTable) programs ask for, and what they do when they are refused.

Needs a card, gcc and Python 3.11; programs whose Python package is missing are left out. All programs run at once: what
they ask for; then under `strict`, where each must work as before. With --each, PyTorch (where it is missing, a program
that needs a single table) once more under `strict` with one table struck from the list, for each table that was asked
for; that is 47 processes. Prints what it saw, writes export_tables.json.

    python3 tests/gpu/export_tables.py [--each] [--out FOLDER] [--simulated FOLDER]
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from bench import NATIVE, STRICT

LIST = NATIVE / "src/intercept/private.txt"
TORCH = "import torch\ncard = torch.device('cuda')\nx = torch.randn(512, 512, device=card, dtype=torch.half)\n"
MATMUL = "(x @ x).sum().item()\n"
CONV = "torch.nn.Conv2d(3, 8, 3).to(card)(torch.randn(2, 3, 64, 64, device=card)).sum().item()\n"
LINEAR = "torch.nn.Linear(512, 512).to(card).half()(x).sum().item()\n"
GRAPH = "y = x @ x\ng = torch.cuda.CUDAGraph()\nwith torch.cuda.graph(g):\n    y = x @ x\ng.replay()\ny.sum().item()\n"
RUNTIME = "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9"
PROGRAMS = {
    "driver": "import ctypes, uuid\nd = ctypes.CDLL('libcuda.so.1')\nt = ctypes.c_void_p()\nassert d.cuInit(0) == 0\n"
    f"assert d.cuGetExportTable(ctypes.byref(t), uuid.UUID('{RUNTIME}').bytes) == 0\n",
    "torch": TORCH + MATMUL,
    "cudnn": TORCH + CONV,
    "cublaslt": TORCH + LINEAR,
    "graph": TORCH + GRAPH,
    "compile": TORCH + "torch.compile(lambda a: (a * 2 + 1).relu().sum())(x).item()\n",
    "nccl": TORCH
    + "import os, torch.distributed as d\nos.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='29511')\n"
    "d.init_process_group('nccl', rank=0, world_size=1)\nd.all_reduce(x)\nx.sum().item()\nd.destroy_process_group()\n",
    "profiler": TORCH + "from torch.profiler import profile, ProfilerActivity as A\n"
    "with profile(activities=[A.CPU, A.CUDA]):\n    (x @ x).sum().item()\n",
    "cupy": "import cupy\na = cupy.random.rand(512, 512)\nfloat((a @ a).sum())\nfloat(cupy.fft.fft(a).real.sum())\n",
    "jax": "import os\nos.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'\nimport jax, jax.numpy as n\n"
    "assert jax.default_backend() == 'gpu'\na = n.ones((512, 512))\nfloat((a @ a).sum())\n",
    "nvdec": "from ctypes import *\nd, v, c = CDLL('libcuda.so.1'), CDLL('libnvcuvid.so.1'), c_void_p()\n"
    "assert d.cuInit(0) == 0 and d.cuDevicePrimaryCtxRetain(byref(c), 0) == 0 and d.cuCtxSetCurrent(c) == 0\n"
    "caps = (c_int * 256)(4, 1)\nassert v.cuvidGetDecoderCaps(caps) == 0\n",
    "nvidia-smi": "import subprocess\nsubprocess.run(['nvidia-smi'], check=True, stdout=subprocess.DEVNULL)\n",
}
WHOLE = TORCH + MATMUL + CONV + LINEAR + GRAPH
DONE = "print('done')\n"
MISSING = re.compile(r"(ModuleNotFoundError|cannot open shared object file|No such file or directory: 'nvidia-smi').*")
ASKED = re.compile(r"private table ([0-9a-f-]{36}), asked for by (.+?), is (.*)")
DENIED = re.compile(r"warning: (\S+) is unknown to this library and denied")


@dataclass
class Told:
    """What became of a program."""

    end: str = ""  # done, missing, or how it failed
    seconds: float = 0
    asked: dict[str, set[str]] = field(default_factory=dict)  # callers by table
    denied: set[str] = field(default_factory=set)  # tables and names


class Libraries:
    """libvgpu.so with one list of private tables or another: compiled once, linked for each."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.flags = [*STRICT, "-fPIC", "-fvisibility=hidden", f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
        self.generate(work, LIST.read_text())
        sources = [each for each in sorted((NATIVE / "src").rglob("*.c")) if each.name != "policy.c"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.objects = list(pool.map(self.compile, sources))

    def generate(self, folder: Path, text: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "table.txt").write_text((LIST.parent / "table.txt").read_text())
        (folder / "private.txt").write_text(text)
        command = [sys.executable, NATIVE / "tools/intercept.py", "make", folder / "table.txt", folder]
        subprocess.run(command, check=True)

    def compile(self, source: Path) -> Path:
        made = self.work / f"{source.stem}.o"
        subprocess.run(["gcc", *self.flags, f"-I{self.work}", "-c", source, "-o", made], check=True)
        return made

    def link(self, name: str, text: str, policy: Path) -> Path:
        folder = self.work / name
        self.generate(folder, text)
        path = f'-DHAMI_POLICY_PATH="{policy}"'
        rest = [folder / "hooks.c", NATIVE / "src/limits/policy.c", f"-Wl,--version-script={folder / 'exports.map'}"]
        link = ["-Wl,-Bsymbolic", "-ldl", "-lpthread", "-o", folder / "libvgpu.so"]
        command = ["gcc", *self.flags, f"-I{folder}", path, "-shared", *self.objects, *rest, *link]
        subprocess.run(command, check=True)
        return folder / "libvgpu.so"


def run(code: str, library: Path, folder: Path | None) -> Told:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA_DEVICE_", "LD_PRELOAD"))}
    env = kept | {"LD_PRELOAD": str(library), "LIBCUDA_LOG_LEVEL": "4"}
    if folder:
        env["LD_LIBRARY_PATH"] = str(folder)
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code + DONE], env=env, capture_output=True, text=True, check=False, timeout=50
        )
    except subprocess.TimeoutExpired:
        return Told("no end after 50 s", time.monotonic() - begun)
    told = Told("done" if done.stdout.endswith("done\n") and done.returncode == 0 else "", time.monotonic() - begun)
    for table, caller, what in ASKED.findall(done.stderr):
        told.asked.setdefault(table, set()).add(caller)
        if "denied" in what:
            told.denied.add(table)
    told.denied.update(DENIED.findall(done.stderr))
    if told.end != "done":
        rest = [line for line in done.stderr.splitlines() if "hami-vgpu[" not in line] or [f"exit {done.returncode}"]
        gone = MISSING.search(done.stderr)
        told.end = f"missing: {gone[0][:80]}" if gone else f"exit {done.returncode}: {rest[-1][:160]}"
    return told


def together(wanted: dict[str, tuple[str, Path]], folder: Path | None) -> dict[str, Told]:
    with ThreadPoolExecutor(len(wanted)) as pool:
        ends = pool.map(lambda each: run(*each, folder), wanted.values())
        return dict(zip(wanted, ends, strict=True))


def card(folder: Path | None) -> tuple[str, int, dict[str, int]]:
    """The first card's UUID; what the driver answers for a table it has not; and for each on the list."""
    driver = ctypes.CDLL(str(folder / "libcuda.so.1") if folder else "libcuda.so.1")
    id_ = ctypes.create_string_buffer(16)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetUuid(id_, 0) != 0:
        raise SystemExit("no card")
    listed = re.findall(r"^[0-9a-f-]{36}", LIST.read_text(), re.MULTILINE)
    out = ctypes.c_void_p()
    answers = {each: driver.cuGetExportTable(ctypes.byref(out), UUID(each).bytes) for each in listed}
    return str(UUID(bytes=id_.raw)), driver.cuGetExportTable(ctypes.byref(out), bytes(range(16))), answers


def strict_policy(work: Path, uuid: str) -> Path:
    path, ledger = work / "policy", work / "ledger"
    ledger.touch()
    lines = ["version 1", "container tables/main", "strict 1", f"ledger {ledger}"]
    path.write_text("\n".join([*lines, f"card GPU-{uuid} mem_mib all core_percent 0", "end", ""]))
    return path


def listing(tables: Iterable[str], without: str) -> str:
    """The list with all of these neutral, and one struck from it."""
    wanted = set(tables)
    kept = [line for line in LIST.read_text().splitlines() if line[:36] not in wanted]
    return "\n".join([*kept, *(f"{table} neutral asked for" for table in wanted if table != without), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--simulated", type=Path, help="folder with the simulated libcuda.so.1 and libnvidia-ml.so.1")
    chosen = parser.parse_args()
    text, begun = LIST.read_text(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        uuid, missing, listed = card(chosen.simulated)
        libraries = Libraries(work)
        plain = libraries.link("plain", text, work / "none")
        first = together({name: (code, plain) for name, code in PROGRAMS.items()}, chosen.simulated)
        here = [name for name, told in first.items() if told.end == "done"]
        tables = sorted({table for told in first.values() for table in told.asked})
        policy = strict_policy(work, uuid)
        strict = libraries.link("strict", text, policy)
        second = {f"strict {name}": (PROGRAMS[name], strict) for name in here}
        code = WHOLE if "torch" in here else PROGRAMS["driver"]
        for table in tables if chosen.each else []:
            struck = libraries.link(f"without-{table}", listing(tables, table), policy)
            second[f"without {table}"] = (code, struck)
        told = first | together(second, chosen.simulated)
    for what, one in told.items():
        print(f"{what:50} {one.seconds:5.1f} s  {one.end}  {' '.join(sorted(one.denied))}")
    users: dict[str, dict[str, list[str]]] = {table: {} for table in tables}
    for what in first:
        for table, callers in first[what].asked.items():
            for caller in callers:
                users[table].setdefault(caller, []).append(what)
    for table, callers_of in users.items():
        known = "listed" if table in text else "NOT LISTED"
        print(f"{table}  {known}")
        for caller, whose in sorted(callers_of.items()):
            print(f"    {caller}: {', '.join(sorted(whose))}")
    lacking = [table for table, answered in listed.items() if answered != 0]
    print(f"the driver answers {missing} for a table it has not; of those listed it lacks {lacking}")
    failed = [name for name in here if told[f"strict {name}"].end != "done"]
    print(f"{len(tables)} tables, {len(here)} programs, under strict {failed or 'none'} failed; "
          f"{time.monotonic() - begun:.0f} s")  # fmt: skip
    kept = {what: {"end": one.end, "seconds": round(one.seconds, 1), "denied": sorted(one.denied)}
            for what, one in told.items()}  # fmt: skip
    answer = {"users": users, "programs": kept, "missing": missing, "listed": listed}
    (chosen.out / "export_tables.json").write_text(json.dumps(answer, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
