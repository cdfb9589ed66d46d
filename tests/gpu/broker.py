#!/usr/bin/env python3
"""Holds the broker to its figures on a real card: turns, live limits, priority, idle neighbours, cost.

Needs gcc, and a Python 3.11 with the project's dependencies (the broker runs in it). Tenants are processes on this
machine, each under a policy file of its own and registered with a real broker. Prints one table, writes broker.json.

    python3 tests/gpu/broker.py [--out FOLDER] [--only SECTION,...] [--seconds N] [--most N] [--quick]
                                [--match PATTERN] [--simulated FOLDER]
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import HERE, NATIVE, STRICT, Bench, build, card, finish, steady, unlimited
from grants import Node
from return_rows import returning
from torch_cost import paired
from torch_live import Pool
from torch_path import path
from torch_rows import without_torch
from torch_single import single
from torch_tenants import serve, torch

Work = tuple[str, int] | tuple[str, int, int]
CAPS = ((10, 90), (30, 70), (50, 50))
PAIRS: tuple[tuple[Work, Work], ...] = (
    (("spin", 1_000_000), ("spin", 1_000_000)),
    (("spin", 100_000), ("spin", 100_000)),
    (("spin", 10_000), ("spin", 10_000)),
    (("sync", 5_000_000), ("sync", 5_000_000)),
    (("spin", 10_000), ("spin", 1_000_000)),
)
MORE: tuple[tuple[tuple[int, int], tuple[Work, Work]], ...] = (
    ((50, 50), (("spin", 5_000_000), ("spin", 100_000))),
    ((30, 70), (("sync", 5_000_000), ("spin", 100_000))),
    ((50, 50), (("sync", 5_000_000), ("spin", 100_000))),
    ((70, 30), (("sync", 5_000_000), ("spin", 100_000))),
    ((30, 70), (("spin", 20_000_000), ("spin", 20_000_000))),
    ((50, 50), (("asks", 5_000_000), ("asks", 5_000_000))),
)
WORKS = (*((caps, works) for works in PAIRS for caps in CAPS), *MORE)
PLAIN = {((30, 70), PAIRS[0]), ((30, 70), PAIRS[1])}
"""Also without turns, for comparison."""


def together(node: Node, caps: tuple[int, int], works: tuple[Work, Work], broker: bool = True) -> list[dict[str, Any]]:
    """Both at once; the first to start runs on for a second, so that neither is measured alone at its end."""
    running = []
    for index, (cap, work) in enumerate(zip(caps, works, strict=True)):
        # A key of its own each time: the broker hears of a changed one a second late.
        key = f"{'turns' if broker else 'plain'}-{cap}-{index}-{work[0]}-{work[1]}"
        node.grant(key, cores=cap, broker=broker)
        seconds = node.bench.seconds + (3, 2)[index]
        running.append(node.start(key, "run", work[0], seconds, *work[1:]))
    return [finish(each) for each in running]


def shares(node: Node, got: list[dict[str, Any]], works: tuple[Work, Work]) -> list[float]:
    """Percent of what each does alone without a limit; the first two seconds left out."""
    parts = []
    for each, work in zip(got, works, strict=True):
        tenths = each.get("tenths", [])[: int((node.bench.seconds + 2) * 10)]
        parts.append(steady({"tenths": tenths}, 2.0) / unlimited(node.bench, *work) * 100)
    return parts


def turns(node: Node) -> None:
    """Two capped tenants, with turns (a broker) and without."""
    for caps, works in WORKS[:3] if node.bench.quick else WORKS:
        label = f"{caps[0]}/{caps[1]}: " + " and ".join(f"{work[0]} {work[1] / 1000:g} us" for work in works)
        if not re.search(node.bench.match, label):
            continue
        for broker in (True, False)[: 2 if (caps, works) in PLAIN else 1]:
            got = together(node, caps, works, broker)
            parts = shares(node, got, works)
            ok = all(abs(part - cap) <= 1.5 for part, cap in zip(parts, caps, strict=True)) and sum(parts) >= 98
            measured = f"{parts[0]:.1f} {parts[1]:.1f} sum {sum(parts):.1f}"
            name = label if broker else f"for comparison, no turns: {label}"
            target = "each +- 1.5, sum >= 98" if broker else ""
            said = [each.get("stderr", "")[-600:] for each in got]
            node.bench.add("turns", name, measured, target, ok if broker else None, said=said)


def hostbound(node: Node) -> None:
    """Bound by their hosts: they overlap, and together do more than one card's worth of either alone."""
    works = (("spin", 8_000, 12_000), ("spin", 8_000, 12_000))
    parts = shares(node, together(node, (30, 70), works), works)
    measured = f"{parts[0]:.0f} {parts[1]:.0f}"
    node.bench.add("hostbound", "8 us + 12 us host, both, 30/70", measured, "sum > 120 of solo", sum(parts) > 120)


def idle(node: Node) -> None:
    """Beside a registered neighbour that does nothing, and beside one that comes and wants its part."""
    solo = unlimited(node.bench, "spin", 100_000)
    for key in ("strict", "sleeper"):
        node.grant(key, cores=50)
    for key in ("free", "guest"):
        node.grant(key, cores=50, core_policy="default")
    sleeper = node.start("sleeper", "hold", 64, 60)
    part = steady(node.run("strict", "run", "spin", 4, 100_000), 2.0) / solo * 100
    node.bench.add("idle", "capped 50, neighbour idle", f"{part:.1f}", "50 +- 1", abs(part - 50) <= 1)
    first = node.begin("free", node.bench.path, "run", "spin", 8, 100_000)
    time.sleep(4)
    guest = node.begin("guest", node.bench.path, "run", "spin", 6, 100_000)
    got, beside = finish(first), finish(guest)
    sleeper.kill()
    finish(sleeper)
    begun = int((beside["begun_ns"] - got["begun_ns"]) / 1e8)
    alone = steady(got, 1.5, begun / 10 - 0.2) / solo * 100
    node.bench.add("idle", "may use idle time, alone", f"{alone:.1f}", ">= 97 of solo", alone >= 97)
    both = steady(got, begun / 10 + 0.2, 8) / solo * 100
    node.bench.add("idle", "and beside one that wants its 50", f"{both:.1f}", "50 +- 1.5", abs(both - 50) <= 1.5)
    between_requests(node, solo)
    caps = (10, 30)
    for key, cap in zip(("tenth", "third"), caps, strict=True):
        node.grant(key, cores=cap, core_policy="default")
    running = [node.start(key, "run", "spin", 6 - at, 100_000) for at, key in enumerate(("tenth", "third"))]
    parts = [steady(finish(each), 2.0, 4.5) / solo * 100 for each in running]
    ok = all(abs(part - cap * 100 / sum(caps)) <= 1.5 for part, cap in zip(parts, caps, strict=True))
    node.bench.add(
        "idle", "10 and 30 that may use the rest", f"{parts[0]:.1f} {parts[1]:.1f}", "25 75, each +- 1.5", ok
    )


def between_requests(node: Node, solo: float) -> None:
    """Beside one that is at work for 2 ms of each 30: what it leaves is used, and it is hardly the slower for it."""
    node.grant("requests", cores=50, core_policy="default")
    request = ("run", "sync", 4, 2_000_000, 28_000_000)
    alone = node.run("requests", *request)
    first = node.start("free", "run", "spin", 7, 100_000)
    time.sleep(1.5)
    beside, got = node.run("requests", *request), finish(first)
    left = steady(got, 2.5, 4.5) / solo * 100
    node.bench.add("idle", "between requests of 2 ms each 30 ms", f"{left:.1f}", ">= 80 of solo", left >= 80)
    part = beside["rate"] / alone["rate"] * 100
    node.bench.add("idle", "and those requests", f"{part:.1f} % of alone", ">= 90 %", part >= 90, told=[alone, beside])


def priority(node: Node) -> None:
    """Short requests of high priority beside endless work of low priority: how long they take, against alone."""
    node.grant("low", priority=1)
    node.grant("high", priority=0)
    request = ("run", "sync", 8, 1_000_000, 5_000_000)
    alone = node.run("high", *request)
    low = node.start("low", "run", "spin", 14, 1_000_000)
    there = node.start("high", "hold", 64, 60)  # the low one hears of a first tenant of high priority within a second
    time.sleep(2)
    beside = node.run("high", *request)
    there.kill()
    finish(there)
    got = finish(low)
    slow = statistics.mean(got["tenths"][50:80]) / statistics.mean(got["tenths"][5:15])
    part = beside["rate"] / alone["rate"] * 100
    node.bench.add("priority", "requests of high priority beside low", f"{part:.0f} % of alone", ">= 90 %", part >= 90)
    ratio = beside["p99_us"] / alone["p99_us"]
    node.bench.add(
        "priority", "p99 of 1 ms requests", late(beside, alone), "<= 1.3 x alone", ratio <= 1.3, alone=alone, got=beside
    )
    node.bench.add("priority", "low meanwhile", f"{slow * 100:.1f} % of before", "< 30 %", slow < 0.3)
    one_by_one(node, request, alone)


def one_by_one(node: Node, request: tuple[object, ...], alone: dict[str, Any]) -> None:
    """Nobody who lets the low one work does better: it has one kernel on the card, which cannot be taken off it."""
    env = node.bench.environment()
    low = node.bench.start(node.bench.path, "run", "sync", 9, 1_000_000, env=env)
    time.sleep(0.8)
    beside = node.bench.probe(*request, env=env)
    rate = finish(low)["rate"]
    measured = f"{late(beside, alone)}; low {rate / 10:.0f} % of the card"
    node.bench.add("priority", "for comparison: no limits, low one kernel at a time", measured, "", None, got=beside)


def late(beside: dict[str, Any], alone: dict[str, Any]) -> str:
    late = sum(each > 1.3 * alone["p99_us"] for each in beside["slowest_us"])
    count = f"{late}{'+' if late == len(beside['slowest_us']) else ''} of {beside['launches']}"
    return f"{beside['p99_us'] / 1000:.2f} ms, alone {alone['p99_us'] / 1000:.2f} ({count} slower than 1.3 x)"


def live(node: Node) -> None:
    """A limit that changes under a running program."""
    node.grant("live", mem="4000")  # a key of its own: the broker reads a changed policy once a second
    process = node.start("live", "watch", 20)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())["total_mib"]
    node.grant("live", mem="6000")
    begun = time.monotonic()
    second = json.loads(process.stdout.readline())["total_mib"]
    took = time.monotonic() - begun
    process.kill()
    node.bench.add(
        "live",
        "4000 to 6000 MiB",
        f"{first} {second} in {took:.1f} s",
        "<= 2.5 s",
        (first, second) == (4000, 6000) and took < 2.5,
    )
    node.grant("pace", cores=20)
    running = node.start("pace", "run", "spin", 10, 1_000_000)
    time.sleep(4)
    node.grant("pace", cores=60)
    tenths, full = finish(running)["tenths"], unlimited(node.bench, "spin", 1_000_000) / 10
    parts = [sum(tenths[a:b]) / (b - a) / full * 100 for a, b in ((25, 38), (70, 95))]
    ok = abs(parts[0] - 20) <= 1.5 and abs(parts[1] - 60) <= 1.5
    node.bench.add("live", "20 to 60 %", f"{parts[0]:.1f} then {parts[1]:.1f}", "each +- 1.5", ok)


def cost(node: Node) -> None:
    """What registering adds to cuInit, and turns to a launch that need not wait."""
    times = {}
    node.grant("holder", broker=False)
    holder = node.start("holder", "hold", 64, 60)  # waking a card that sleeps takes longer than all the rest
    for broker in (False, True):
        key = "told" if broker else "untold"
        node.grant(key, broker=broker)
        node.run(key, "init")
        env = node.bench.environment() | {"LD_PRELOAD": str(node.library())}
        times[broker] = statistics.median(node.bench.probe("init", env=env)["init_ms"] for _ in range(7))
    holder.kill()
    finish(holder)
    added = times[True] - times[False]
    node.bench.add(
        "cost", "registering, added to cuInit", f"{added:.1f} ms of {times[False]:.0f}", "<= 5 ms", added <= 5
    )
    node.grant("brisk", cores=99)
    got = node.run("brisk", "launches", 200_000)
    node.bench.add(
        "cost",
        "null launch, limit 99, registered",
        f"+{got.get('added_ns')} ns",
        "<= 40 ns",
        got.get("added_ns", 1e9) <= 40,
    )


def kills(node: Node) -> None:
    node.grant("one", mem="8192")
    slowest = 0.0
    for _ in range(10 if node.bench.quick else 50):
        victims = [node.start("one", "hold", 256, 60) for _ in range(4)]
        for victim in victims:
            victim.kill()
            victim.communicate()
        slowest = max(slowest, node.until(lambda: node.value("hami_broker_clients") == 0, "the end of the sessions"))
    after = node.run("one", "mem", "linear")
    ok = slowest < 1 and after.get("taken_mib", 0) >= 8192 - 1024
    node.bench.add(
        "kills", "kills; slowest end, MiB after", f"{slowest:.2f} s, {after.get('taken_mib')}", "< 1 s, all", ok
    )


def exceeded(node: Node) -> None:
    """A program registers, then takes memory by entry points that it read from the driver's own symbol table."""
    elf = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}", NATIVE / "src/intercept/elf.c"]
    escape = node.root / "escape"
    subprocess.run(["gcc", *STRICT, HERE / "pods/escape.c", *elf, "-o", escape, "-ldl"], check=True)
    key = str(uuid.uuid4())
    node.grant(key, mem="2000")
    group = Path(os.environ.get("HAMI_CGROUPS", "/sys/fs/cgroup")) / f"pod{key}"  # so the agent knows whose it is
    group.mkdir()
    try:
        line = f"echo $$ > {group}/cgroup.procs && exec {escape} taken libcuda.so.1 8000 90"
        process = node.begin(key, "sh", "-c", line)
        assert process.stdout is not None
        took = json.loads(process.stdout.readline()).get("taken_mib")
        begun = time.monotonic()
        finish(process)
        waited = time.monotonic() - begun
    finally:
        group.rmdir()
    ok = took is not None and took > 2000 and process.returncode == -signal.SIGKILL and waited < 45
    measured = f"had {took} MiB of 2000, ended after {waited:.0f} s"
    node.bench.add(
        "exceeded", "--exceeded stop (grace 30 s after the agent's start)", measured, "ended within 45 s", ok
    )


def pytorch(node: Node, names: Sequence[str], most_s: float) -> None:
    """Sections that share the same programs, and the time there is."""
    if not node.bench.simulated and without_torch(node.bench):
        return
    pool = Pool(node)
    try:
        pool.start()
        for name in names:
            section, part = POOLED[name]
            guarded(node.bench, name, section, pool, most_s * part / sum(POOLED[each][1] for each in names))
    finally:
        pool.end()
        node.bench.about["said"] = pool.said
        node.bench.keep()


SECTIONS = {
    each.__name__: each for each in (turns, hostbound, idle, returning, priority, live, cost, kills, serve, exceeded)
}
POOLED = {"paired": (paired, 6), "path": (path, 1), "single": (single, 6), "torch": (torch, 5)}
"""And their parts of the time."""


def guarded(bench: Bench, name: str, act: Callable[..., None], *of: Any) -> None:
    """A section that cannot be measured is a row that fails, and the next is measured all the same."""
    try:
        act(*of)
    except (KeyError, ValueError, ZeroDivisionError, subprocess.SubprocessError) as fault:
        bench.add(name, "this section", f"{type(fault).__name__}: {fault}"[:60], "", False, why=str(fault))


def run(node: Node, names: Sequence[str], most_s: float) -> None:
    """In this order, but those that share programs together, last."""
    for name in names:
        if name not in POOLED:
            with node.agent("stop" if name == "exceeded" else "report"):
                guarded(node.bench, name, SECTIONS[name], node)
    pooled = [name for name in names if name in POOLED]
    if pooled:
        with node.agent():
            guarded(node.bench, "torch", pytorch, node, pooled, most_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default=",".join([*SECTIONS, *POOLED]))
    parser.add_argument("--seconds", type=float, default=6, help="that two tenants are measured for")
    parser.add_argument("--most", type=float, default=240, help="seconds for PyTorch programs once they are warm")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--match", default="", help="of turns and of PyTorch, only programs like this")
    parser.add_argument(
        "--simulated", type=Path, help="folder with the simulated libraries; HAMI_SIM_CARDS says what they show"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as folder:
        bench = Bench(Path(folder), chosen.seconds, chosen.quick, chosen.simulated, chosen.match)
        build(bench)
        (bench.work / "grants").mkdir()
        node = Node(bench, bench.work, bench.uuid())
        node.build()
        bench.calibrate()
        about = {} if chosen.simulated else card(bench)
        bench.about = {"card": about, "date": time.strftime("%Y-%m-%d")}
        bench.kept_in = chosen.out / "broker.json"
        run(node, chosen.only.split(","), chosen.most)
    failed = [row.name for row in bench.rows if row.ok is False]
    print(f"{len(bench.rows)} rows, {len(failed)} failed: {', '.join(failed)[:600]}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
