#!/usr/bin/env python3
"""What NVML shows of a tenant's processes: in a pid namespace, as containers have one, and of time that nobody charges.

Needs root, gcc, and a Python 3.11 with msgspec and nvidia-ml-py. A broker runs outside, as the agent has it. Prints one
table, writes seen.json.

    python3 tests/gpu/seen.py [--out FOLDER] [--seconds N] [--simulated FOLDER]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import Bench, build, card, finish, steady
from grants import Node

HELD_MIB = 1000
SLICE_MIB = 4000
LIST = """
import json, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
memory = pynvml.nvmlDeviceGetMemoryInfo(card)
listed = pynvml.nvmlDeviceGetComputeRunningProcesses(card)
shown = [[one.pid, (one.usedGpuMemory or 0) >> 20] for one in listed]
print(json.dumps({"total": memory.total >> 20, "used": memory.used >> 20, "shown": shown}))
"""
INSIDE = """
"$PROBE" hold {held} 60 >/dev/null & holder=$!
sleep 4
echo "{{\\"holder\\": $holder}}"
"$PYTHON" -c "$LIST"
LD_PRELOAD= "$PYTHON" -c "$LIST"
kill -9 $holder
"""
"""Run in a namespace of its own: who holds memory there, what NVML lists through the library, what without it."""


def pids(node: Node) -> None:
    """A neighbour that is no tenant holds memory beside it, outside of the namespace."""
    bench = node.bench
    node.grant("seen", mem=str(SLICE_MIB))
    with node.agent():
        neighbour = bench.start(bench.path, "hold", 500, 60, env=bench.environment())
        os.environ.update(PROBE=str(bench.path), PYTHON=sys.executable, LIST=LIST)
        script = INSIDE.format(held=HELD_MIB)
        inside = node.begin("seen", "unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script)
        time.sleep(3.5)
        shown = node.value("hami_vgpu_memory_shown_bytes") / 2**20
        out, err = inside.communicate(timeout=60)
        neighbour.kill()
        neighbour.wait()
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if len(lines) < 3:
        raise ValueError(f"nothing seen: {err[-300:]}")
    holder, ours, plain = lines[0]["holder"], lines[1], lines[2]
    judge_pids(bench, holder, ours, plain, shown)


def judge_pids(bench: Bench, holder: int, ours: dict[str, Any], plain: dict[str, Any], shown_mib: float) -> None:
    section = "seen"
    own = [pid for pid, mib in ours["shown"] if mib >= HELD_MIB]
    bench.add(
        section, "outside: the agent finds a container's process by its pid", f"{shown_mib:.0f} MiB",
        f">= {HELD_MIB} MiB", shown_mib >= HELD_MIB,
    )  # fmt: skip
    bench.add(
        section, "inside, with the library: the card", f"{ours['total']} MiB, {ours['used']} used",
        f"{SLICE_MIB}, >= {HELD_MIB}", ours["total"] == SLICE_MIB and ours["used"] >= HELD_MIB,
    )  # fmt: skip
    bench.add(
        section, "inside, with the library: processes", told(ours, holder), "nobody else's",
        all(pid == holder for pid, _ in ours["shown"]), pids=ours["shown"],
    )  # fmt: skip
    bench.add(section, "inside, without it: processes", told(plain, holder), "", None, pids=plain["shown"], own=own)


def told(view: dict[str, Any], holder: int) -> str:
    if not view["shown"]:
        return "none"
    names = ("itself" if pid == holder else f"another ({pid})" for pid, _ in view["shown"])
    return ", ".join(names)


def uncharged(node: Node, ns: int, host_ns: int) -> None:
    """Alone under policy default, each kernel waited for, so that what it ran is known: the metric against that."""
    bench = node.bench
    node.grant("alone", cores=30, core_policy="default")
    shown: list[float] = []
    words: set[float] = set()
    with node.agent():
        process = node.start("alone", "run", "sync", bench.seconds + 6, ns, host_ns)
        time.sleep(6.5)  # for some seconds nobody has looked whether it is alone, so it pays
        while process.poll() is None and len(shown) < bench.seconds - 1:
            shown.append(node.value("hami_container_device_utilization_ratio"))
            words.add(node.value("hami_vgpu_time_charged"))
            time.sleep(1)
        got = finish(process)
    ran = steady(got, 5.0) * ns / 1e9 * 100
    mean = sum(shown) / len(shown) if shown else -1.0
    ok = words == {0.0} and abs(mean - ran) <= 8
    name = f"alone, nothing charged: {ns / 1e6:g} ms kernels, {host_ns / 1e6:g} ms between"
    bench.add("seen", name, f"{mean:.1f} % shown, {ran:.1f} ran", "+- 8", ok, shown=shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--simulated", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.seconds, quick=False, simulated=chosen.simulated)
        build(bench)
        about = card(bench)
        bench.about = {"card": about, "date": time.strftime("%Y-%m-%d", time.gmtime()), "command": " ".join(sys.argv)}
        bench.kept_in = chosen.out / "seen.json"
        bench.calibrate()
        with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as place:  # a socket's path has 108 bytes
            node = Node(bench, Path(place), str(about["uuid"]))
            (node.root / "grants").mkdir()
            node.build()
            pids(node)
            uncharged(node, 2_000_000, 3_000_000)
            uncharged(node, 200_000, 100_000)
    failed = [row.name for row in bench.rows if row.ok is False]
    print(f"{len(bench.rows)} rows, {len(failed)} failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
