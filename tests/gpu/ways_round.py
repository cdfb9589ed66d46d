#!/usr/bin/env python3
"""Ways round the library that have no place among the routes of `limits.py`: what holds, and what the card does at all.

Rows without a target are facts of the driver, asked without the library, that a decision needs. Needs gcc and Python
3.11; prints one table, writes ways.json.

    python3 tests/gpu/ways_round.py [--out FOLDER] [--only SECTION,...] [--seconds N] [--simulated FOLDER]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import HERE, Bench, build, card, finish

KEPT = ("retained", "imported", "destroyed_pool", "freed_in_order")
"""Ways to give memory back and still have it, by what has it then."""
LIMIT_MIB = 4096
SLACK_MIB = 64
PERCENT = 20


def way(bench: Bench, *words: object, **limits: Any) -> dict[str, Any]:
    return finish(bench.start(sys.executable, HERE / "way.py", *words, env=bench.environment(**limits)), 90)


def fact(bench: Bench, name: str, *words: object, **limits: Any) -> dict[str, Any]:
    got = way(bench, *words, **limits)
    bench.add("facts", name, " ".join(f"{key} {value}" for key, value in got.items())[:1500], "", None, **got)
    return got


def driver_file(bench: Bench) -> Path:
    code = "import ctypes; ctypes.CDLL('libcuda.so.1'); print(open('/proc/self/maps').read())"
    maps = subprocess.run(
        [sys.executable, "-c", code], env=bench.environment(), capture_output=True, text=True, check=True
    ).stdout
    return Path(next(line.split()[-1] for line in maps.splitlines() if "/libcuda.so" in line))


def names(bench: Bench) -> None:
    """The driver by a link, by a copy of another name, by the C library's own lookup: held; a copy beside: denied."""
    link, copy = bench.work / "plain.so", bench.work / "other.so"
    driver = driver_file(bench)
    link.symlink_to(driver)
    shutil.copy(driver, copy)
    tried = {"a link of another name": ("linear", link), "a copy of another name": ("linear", copy),
             "a dlsym of libc.so.6's": ("asked", "handle"), "the next dlsym": ("asked", "next")}  # fmt: skip
    for name, words in tried.items():
        got = way(bench, *words, memory=f"{LIMIT_MIB}m")
        held = got.get("nvml", [0])[0]
        bench.add("names", f"the driver by {name}", f"{held} MiB", f"<= {LIMIT_MIB + SLACK_MIB}",
                  0 < held <= LIMIT_MIB + SLACK_MIB, **got)  # fmt: skip
    got = way(bench, "beside", copy, memory=f"{LIMIT_MIB}m")
    bench.add("names", "a copy beside the driver", str(got)[:60], "denied", "denied" in got, **got)
    fact(bench, "a copy, without the library", "linear", copy)
    fact(bench, "a dlsym of libc.so.6's, without the library", "asked", "handle")


def held(bench: Bench) -> None:
    """What is still held when everything but one thing was given back, and what comes without being asked for."""
    for name in KEPT:
        fact(bench, name, name)
    for words in (("exported",), ("dmabuf",), ("local", "16384"), ("local", "65536"), ("pageable",), ("managed_pool",),
                  ("graphs", "beside"), ("graphs", "same")):  # fmt: skip
        fact(bench, " ".join(words), *words)
    for words in (("exported",), ("local", "65536"), ("managed_pool",)):
        fact(bench, f"{' '.join(words)}, limit {LIMIT_MIB} MiB", *words, memory=f"{LIMIT_MIB}m")


def local(bench: Bench) -> None:
    """Local memory of kernels is refused where it passes the limit, and goes where it fits."""
    for size, fits in (("8192", True), ("65536", False)):
        got = way(bench, "local", size, memory=f"{LIMIT_MIB}m")
        held, codes = got.get("after", [0])[0], got.get("launched")
        ok = 0 < held <= LIMIT_MIB + SLACK_MIB and codes == ([0, 0] if fits else [2, 0])
        target = "runs" if fits else f"refused, <= {LIMIT_MIB + SLACK_MIB}"
        bench.add("local", f"{size} bytes a thread", f"{held} MiB, {codes}", target, ok, **got)


def freed(bench: Bench) -> None:
    """What descriptors hold after everything else was given back stays charged until they are closed.

    Each has a ledger of its own: what the program before had is there until somebody looks, up to a second.
    """
    for words in (("exported",), ("dmabuf",)):
        got = way(bench, *words, memory=f"{LIMIT_MIB}m", tenant=words[0])
        after = got.get("free_later") or got.get("info")
        ok = after is not None and after[0] <= LIMIT_MIB - 1024 - 400
        bench.add("freed", words[0], f"{after} MiB free", "<= 2672", ok, **got)
    for name in KEPT:
        got = way(bench, name, memory=f"{LIMIT_MIB}m", tenant=name)
        free, then = got.get("free", [0])[0], got.get("free_then", [0])[0]
        bench.add("freed", name, f"{free} MiB free, then {then}", "1024 more then", then - free == 1024, **got)


def captures(bench: Bench) -> None:
    fact(bench, "captures: code, and of the end", "captures")
    fact(bench, "captures: what is asked meanwhile", "asked_meanwhile")


def torch_starts(bench: Bench) -> None:
    """PyTorch with and without a limit of memory: how long its start is, what it holds, what a launch costs."""
    for limits in ({}, {"memory": "8192m"}, {"memory": "8192m", "limit": 99}, {}):
        fact(bench, f"torch, {limits or 'without the library'}", "torch_start", **limits)


def share(bench: Bench, name: str, *words: object) -> None:
    """What is had at 20 % of what the same is without the library."""
    free = way(bench, *words, bench.seconds)
    capped = way(bench, *words, bench.seconds, limit=PERCENT)
    if "a_second" not in free:
        bench.add("time", name, free.get("error", "?"), "not to be had here", None, **free)
        return
    got = 100 * capped.get("a_second", 0) / free["a_second"]
    ok = abs(got - PERCENT) <= 1
    bench.add("time", f"{name} at {PERCENT}", f"{got:.1f} %", f"{PERCENT} +- 1", ok, free=free, capped=capped)


def times(bench: Bench) -> None:
    share(bench, "1 ms kernels", "spins", "plain")
    share(bench, "in a green context's stream", "spins", "green")
    share(bench, "the green context current", "spins", "current")
    for how in ("plain", "peer", "peer3d", "batch3d", "hinted", "hinted3d"):
        share(bench, f"copies of 256 MiB: {how}", "copies", how)


SECTIONS = {"names": names, "held": held, "local": local, "freed": freed, "captures": captures, "torch": torch_starts,
            "times": times}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--simulated", type=Path, help="folder with the simulated libcuda.so.1 and libnvidia-ml.so.1")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.seconds, False, chosen.simulated)
        build(bench)
        bench.about = {"card": card(bench), "date": time.strftime("%Y-%m-%d", time.gmtime())}
        bench.kept_in = chosen.out / "ways.json"
        for section in chosen.only.split(","):
            begun = time.monotonic()
            SECTIONS[section](bench)
            print(f"-- {section}: {time.monotonic() - begun:.0f} s", flush=True)
    failed = [row.name for row in bench.rows if row.ok is False]
    print(f"{len(bench.rows)} rows, {len(failed)} failed: {', '.join(failed)[:600]}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
