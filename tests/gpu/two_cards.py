#!/usr/bin/env python3
"""Two cards in one container: each has its own share of time and its own memory. And how the agent sees them joined.

Needs a machine with two cards or more, gcc, and a Python 3.11 with msgspec and nvidia-ml-py; PyTorch's row is skipped
where torch is missing. Prints one table, writes cards.json.

    python3 tests/gpu/two_cards.py [--out FOLDER] [--seconds N] [--simulated FOLDER]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import Bench, build, card, finish, steady
from grants import Node
from torch_rows import torch_program, without_torch

CORES = (30, 70)
MIB = (4000, 8000)


def grant(node: Node, uuids: list[str]) -> dict[str, str]:
    """One policy with a line for each card, as the agent writes it; what a program needs to be under it."""
    ledger = node.root / "both"
    ledger.touch()
    lines = ["version 1", "container two/main", "core_policy force", "priority 1", "fail closed", "strict 0"]
    lines += [f"ledger {ledger}"]
    lines += [
        f"card {uuid} mem_mib {mib} core_percent {cores}" for uuid, mib, cores in zip(uuids, MIB, CORES, strict=True)
    ]
    node.policy().write_text("\n".join([*lines, "end", ""]))
    return node.bench.environment() | {"LD_PRELOAD": str(node.library()), "LIBCUDA_LOG_LEVEL": "2"}


def budgets(node: Node, uuids: list[str]) -> None:
    """Two processes of one container, one on each card, at the same time; then one process on both."""
    bench, plain = node.bench, node.bench.environment()
    solos = [on(bench, at, plain, "run", "spin", bench.seconds, 100_000) for at in (0, 1)]
    alone = [steady(finish(each), 1.0) for each in solos]
    env = grant(node, uuids)
    totals = [finish(on(bench, at, env, "info")).get("total_mib") for at in (0, 1)]
    bench.add("cards", "memory each card has", f"{totals[0]} {totals[1]} MiB", "4000 8000", totals == list(MIB))
    running = [on(bench, at, env, "run", "spin", bench.seconds, 100_000) for at in (0, 1)]
    parts = [steady(finish(each), 1.0) / full * 100 for each, full in zip(running, alone, strict=True)]
    judge(bench, "two processes, 100 us kernels, 30 and 70", parts)
    one_thread(bench, env)
    if without_torch(bench):
        return
    free = torch_program(bench, "cards", bench.seconds, "idle", env=plain)
    got = torch_program(bench, "cards", bench.seconds, env=env)
    parts = [rate / most * 100 for rate, most in zip(got["rates"], free["rates"], strict=True)]
    # It waits for the card now and then, so its percent of the card is some more of its speed.
    busy = [rate * each for rate, each in zip(free["rates"], free["queued_s"], strict=True)]
    judge(bench, "one process, PyTorch, a thread a card, 30 and 70", parts, busy)
    # The CUDA runtime changes contexts by what lookups gave it: were there another way, the library would say so.
    said = str(got.get("stderr", ""))
    bench.add("cards", "PyTorch's contexts change unseen", "unseen" in said, "no", "unseen" not in said, said=said)


def one_thread(bench: Bench, env: dict[str, str]) -> None:
    """One launch of 0.1 ms on the first card, three on the second; and what a launch costs that need not wait."""
    got = bench.probe("cards", bench.seconds, 100_000, env=env)
    due = min(CORES[0] / 1, CORES[1] / 3) * 4 / 100 / 100e-6
    measured = f"{got['rate'] / due * 100:.1f} % of what both let through"
    bench.add(
        "cards", "one thread on both, 1 and 3 launches", measured, "100 +- 2 %", abs(got["rate"] / due - 1) <= 0.02
    )
    got = bench.probe("launches", 200_000, env=env | {"PROBE_DEVICE": "1"})
    added = got["added_ns"]
    bench.add("cards", "null launch, limit 70, two cards seen", f"+{added:.0f} ns", "<= 40 ns", added <= 40, got=got)


def judge(bench: Bench, name: str, parts: Sequence[float], busy: Sequence[float] = (1.0, 1.0)) -> None:
    """`parts` of its speed without limits, percent; it kept the cards busy for such parts of the time then."""
    due = [cap / min(1.0, part) for cap, part in zip(CORES, busy, strict=True)]
    ok = all(abs(part - each) <= 1.5 for part, each in zip(parts, due, strict=True))
    target = "each +- 1.5" if due == list(CORES) else f"{due[0]:.1f} {due[1]:.1f}, each +- 1.5"
    bench.add("cards", name, f"{parts[0]:.1f} {parts[1]:.1f}", target, ok, busy=list(busy))


def on(bench: Bench, at: int, env: dict[str, str], *words: object) -> "subprocess.Popen[str]":
    return bench.start(bench.path, *words, env=env | {"PROBE_DEVICE": str(at)})


def links(bench: Bench, uuids: list[str]) -> None:
    """What the agent registers about how cards are joined, by NVML's word; nvidia-smi's matrix beside it."""
    from hami.agent.cards.links import joined
    from hami.model.ids import CardId
    from hami.vendors.nvidia.driver import Driver

    driver = Driver()
    driver.open()
    found = joined(driver, {CardId(uuid): driver.device_by_uuid(uuid) for uuid in uuids})
    one, two = (found.links.get(CardId(a), {}).get(CardId(b), 0) for a, b in (uuids, uuids[::-1]))
    shown = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, check=False).stdout
    row = next((line.split() for line in shown.splitlines() if line.startswith("GPU0")), [])
    told = row[2] if len(row) > 2 else "nothing"
    counted = int(told[2:]) if told.startswith("NV") else 0
    ok = not found.uneven and one == two and one // 100 == counted
    bench.add("cards", "points between the two, each way", f"{one} {two}", f"nvidia-smi: {told}", ok, topology=shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument(
        "--simulated", type=Path, help="folder with the simulated libraries; HAMI_SIM_CARDS says what they show"
    )
    chosen = parser.parse_args()
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # for whatever runs from here on
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as folder:
        bench = Bench(Path(folder), chosen.seconds, False, chosen.simulated)
        build(bench)
        uuids = [bench.uuid(at) for at in (0, 1)]
        node = Node(bench, bench.work, uuids[0])
        node.build()
        bench.calibrate()
        bench.about = {"card": {} if bench.simulated else card(bench), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        bench.kept_in = chosen.out / "cards.json"
        budgets(node, uuids)
        if not bench.simulated:
            links(bench, uuids)
    return int(any(row.ok is False for row in bench.rows))


if __name__ == "__main__":
    sys.exit(main())
