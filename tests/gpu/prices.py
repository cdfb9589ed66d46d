#!/usr/bin/env python3
"""What short kernels are charged, against what they take in a full queue: process by process, since that differs.

    python3 tests/gpu/prices.py [--times 3] [--seconds 3] [--ns 2000,10000] [--limits 50,80]

A line a process: its share of the throughput that the card has room for, the last price, and what was seen in bulk.
"""

import argparse
import re
import statistics
import tempfile
from pathlib import Path

from bench import Bench, build, steady

PAIR = re.compile(r"launch \d+ of (\w+): pair (\d+) ns, charged (\d+)")
BULK = re.compile(r"(\d+) launches in bulk: took (\d+) ns, charged (\d+)")
OFFSET = re.compile(r"a pair of events adds (\d+) ns")
EVERYTHING = {"LIBCUDA_LOG_LEVEL": "4"}


def tell(bench: Bench, ns: int, limit: int, full_ns: float) -> None:
    process = bench.start(bench.path, "run", "spin", bench.seconds, ns, env=bench.environment(limit) | EVERYTHING)
    out, log = process.communicate(timeout=60)
    tenths = [int(each) for each in out.split("[")[-1].split("]")[0].split(",")]
    share = steady({"tenths": tenths}, 1.0) * full_ns / 1e7
    pairs = [(int(pair), int(charged)) for _, pair, charged in PAIR.findall(log)]
    bulks = [(int(count), int(took), int(charged)) for count, took, charged in BULK.findall(log)]
    offsets = [int(each) for each in OFFSET.findall(log)]
    price = pairs[-1][1] if pairs else 0
    median = statistics.median(pair for pair, _ in pairs) if pairs else 0
    in_bulk = [f"{took / count:.0f}/{charged / count:.0f}" for count, took, charged in bulks]
    print(f"{ns} ns at {limit}: {share:.2f}; price {price} ({price / full_ns * 100 - 100:+.1f} %)", end="; ")
    print(f"{len(pairs)} pairs of {median:.0f}, offset {offsets[-1:]}", end="; ")
    print(f"in bulk, measured/charged: {' '.join(in_bulk)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--ns", default="2000,10000")
    parser.add_argument("--limits", default="50,80")
    parser.add_argument("--simulated", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.seconds, False, chosen.simulated)
        build(bench)
        bench.rounds_a_ns = str(bench.probe("run", "spin", 1, 100_000, env=bench.environment())["rounds_a_ns"])
        for ns in map(int, chosen.ns.split(",")):
            for _ in range(chosen.times):
                full_ns = bench.probe("full", ns, env=bench.environment())["full_ns"]
                free = bench.probe("run", "spin", bench.seconds / 2, ns, env=bench.environment())
                share = steady(free, 0.5) * full_ns / 1e7
                print(f"{ns} ns: {full_ns:.0f} ns in a full queue; without a limit {share:.1f} of it", flush=True)
                for limit in map(int, chosen.limits.split(",")):
                    tell(bench, ns, limit, full_ns)


if __name__ == "__main__":
    main()
