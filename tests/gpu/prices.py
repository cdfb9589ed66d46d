#!/usr/bin/env python3
"""What the library charges for short kernels, sets and copies, process by process: where their shares come from.

    python3 tests/gpu/prices.py [--times 3] [--ns 2000,10000] [--host-ns 12000] [--limits 50,80] [--moves] [--streams]

Each process says what its own launches take in a full queue, before it is held to its limit and after that (a card
takes some percent more or less for the same launches in one process than in the next), so its share needs no other
process: rate under the limit times that. Beside it what was charged, what single pairs of events showed, and bulk.
"""

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bench import Bench, build, steady, unlimited

PAIR = re.compile(r"launch \d+ of (\w+): pair (\d+) ns, charged (\d+)")
BULK = re.compile(r"(\d+) launches in bulk: took (\d+) ns, charged (\d+)")
OFFSET = re.compile(r"a pair of events adds (\d+) ns")
BURST = re.compile(r"burst of \d+ streams: prices (\d+) us, span (\d+), paid (\d+)")
EVERYTHING = {"LIBCUDA_LOG_LEVEL": "4"}


def logged(bench: Bench, limit: int | None, *words: object) -> tuple[dict[str, Any], str]:
    """What the probe says under a limit, and what the library does; None: without the library."""
    process = bench.start(bench.path, *words, env=bench.environment(limit) | EVERYTHING)
    out, log = process.communicate(timeout=90)
    return json.loads(out), log


def charged(log: str) -> str:
    """The key measured most; its pairs, and what was seen in bulk, a launch."""
    pairs = [(int(pair), int(price)) for _, pair, price in PAIR.findall(log)]
    bulks = [f"{int(took) / int(count):.0f}/{int(price) / int(count):.0f}" for count, took, price in BULK.findall(log)]
    offsets = [int(each) for each in OFFSET.findall(log)]
    if not pairs:
        return "nothing measured"
    shown = statistics.quantiles([pair for pair, _ in pairs], n=20) if len(pairs) > 1 else [pairs[0][0]] * 19
    last = statistics.mean(price for _, price in pairs[-8:])
    return (
        f"price {last:.0f}; {len(pairs)} pairs of {shown[0]:.0f} {shown[9]:.0f} {shown[18]:.0f}, "
        f"offset {offsets[-1] if offsets else 0}; in bulk, measured/charged: {' '.join(bulks)}"
    )


def kernels(bench: Bench, ns: int, host_ns: int, limit: int | None) -> None:
    got, log = logged(bench, limit, "share", ns, bench.seconds, host_ns)
    before, after = got["before"], got["after"]
    full_ns = (before["full_ns"] + after["full_ns"]) / 2
    share, alone = steady(got, 1.0) * full_ns / 1e7, full_ns / (before["alone_ns"] + after["alone_ns"]) * 200
    queue = f"{before['full_ns']:.0f} {after['full_ns']:.0f} ({before['full_low']:.0f} to {after['full_high']:.0f})"
    print(
        f"{ns} + {host_ns} ns at {limit or 'no limit'}: {share:.2f}, without a limit {alone:.1f}; "
        f"in a full queue {queue}; {charged(log)}",
        flush=True,
    )


def moves(bench: Bench, work: str, limit: int) -> None:
    size = 256 << 20
    full = unlimited(bench, work, size)
    got, log = logged(bench, limit, "run", work, bench.seconds, size)
    print(
        f"{work} at {limit}: {steady(got, 1.0) / full * 100:.2f}; in a full queue {1e9 / full:.0f}; {charged(log)}",
        flush=True,
    )


def streams(bench: Bench, limit: int) -> None:
    """Four at once: how many kernels' time there is in that of a burst, and without a limit."""
    for ns, *words in ((20_000, "threads", 4), (20_000, "streams", 4, 1), (100_000, "streams", 4, 0)):
        program = [*words, bench.seconds, ns, *([] if words[0] == "threads" else [1])]
        full = steady(bench.probe(*program, env=bench.environment()), 1.0)
        got, log = logged(bench, limit, *program)
        bursts = [(int(prices), int(span)) for prices, span, _ in BURST.findall(log)]
        at_once = statistics.median(prices / span for prices, span in bursts) if bursts else 0
        charged_s = sum(min(burst) for burst in bursts) / 1e6
        print(
            f"{' '.join(map(str, program))} at {limit}: {steady(got, 1.0) / full * 100:.2f}; "
            f"{full * ns / 1e9:.2f} at once "
            f"without a limit; {len(bursts)} bursts, {at_once:.2f} at once by prices, charged {charged_s:.2f} s",
            flush=True,
        )
        for prices, span in bursts[-4:]:
            print(f"  prices {prices} us, span {span}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--ns", default="2000,10000")
    parser.add_argument("--host-ns", type=int, default=0, help="work of the host between two launches")
    parser.add_argument("--limits", default="50,80")
    parser.add_argument("--moves", action="store_true", help="sets and copies of 256 MiB in place of kernels")
    parser.add_argument("--streams", action="store_true", help="four streams in place of one")
    parser.add_argument("--simulated", type=Path)
    chosen = parser.parse_args()
    limits = [int(each) for each in chosen.limits.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.seconds, False, chosen.simulated)
        build(bench)
        bench.calibrate()
        for ns in map(int, [] if chosen.moves or chosen.streams else chosen.ns.split(",")):
            kernels(bench, ns, chosen.host_ns, None)
        for limit in limits * chosen.times:
            if chosen.moves:
                moves(bench, "memset", limit)
                moves(bench, "copy", limit)
                continue
            if chosen.streams:
                streams(bench, limit)
                continue
            for ns in map(int, chosen.ns.split(",")):
                kernels(bench, ns, chosen.host_ns, limit)


if __name__ == "__main__":
    main()
