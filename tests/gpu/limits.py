#!/usr/bin/env python3
"""Holds libvgpu to its figures on a real card (or, with --simulated, shows that this program works without one).

Needs gcc and Python 3.11, nothing else of the project; PyTorch rows are skipped where torch is missing. Each figure is
a program's throughput against the same program without the library in the same run. Prints one table, writes JSON.

    python3 tests/gpu/limits.py [--out FOLDER] [--only SECTION,...] [--seconds N] [--quick]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import Bench, build, card
from cost_rows import init, kills, overhead
from memory_rows import at_once, loans, names, routes
from time_rows import hostbound, shares, streams, tenants
from torch_rows import fill

SECTIONS = {
    "names": names,
    "routes": routes,
    "loans": loans,
    "at_once": at_once,
    "shares": shares,
    "hostbound": hostbound,
    "streams": streams,
    "tenants": tenants,
    "overhead": overhead,
    "init": init,
    "kills": kills,
    "fill": fill,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--match",
        default="",
        help="of shares and hostbound, only rows like this: 'spin 2000 at 50'",
    )
    parser.add_argument("--simulated", type=Path, help="folder with the simulated libcuda.so.1 and libnvidia-ml.so.1")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.seconds, chosen.quick, chosen.simulated, chosen.match)
        build(bench)
        about = card(bench)
        print(about)
        calibration = bench.calibrate()
        bench.about = {
            "card": about,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": " ".join(sys.argv),
            "calibration": calibration,
        }
        bench.kept_in = chosen.out / "limits.json"
        for section in chosen.only.split(","):
            begun = time.monotonic()
            try:
                SECTIONS[section](bench)
            except (
                KeyError,
                ValueError,
                ZeroDivisionError,
                subprocess.SubprocessError,
                statistics.StatisticsError,
            ) as fault:
                bench.add(section, "this section", f"{type(fault).__name__}: {fault}"[:60], "", False)
            print(f"-- {section}: {time.monotonic() - begun:.0f} s", flush=True)
    failed = [row.name for row in bench.rows if row.ok is False]
    print(f"{len(bench.rows)} rows, {len(failed)} failed: {', '.join(failed)[:600]}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
