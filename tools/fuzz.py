#!/usr/bin/env python3
"""Runs the fuzz targets of native/tests/fuzz under libFuzzer, with ASan and UBSan: `make fuzz ARGS="--minutes 10"`.

Needs a clang with its fuzzer's runtime (Debian: clang-14 and libclang-rt-14-dev, 14 MB to fetch, 8 s, 113 MB on disk);
without one it says so and ends with 0. `make test` needs none: there the same targets run under our own guide. What a
run reaches is kept in build/fuzz, and the next goes on from there; an input that a target dies of is left in
native/tests/fuzz/found, and every test run tries it from then on. Exit status 1: there was one.

    tools/fuzz.py [--minutes N] [--only policy,wire]
"""

import argparse
import glob
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
FOUND = NATIVE / "tests/fuzz/found"
SEEDS = NATIVE / "tests/fuzz/seeds"
VECTORS = NATIVE / "tests/broker.vectors"
KEPT = ROOT / "build/fuzz"
FLAGS = ["-std=gnu11", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
MOST_BYTES = 4096
TARGETS = {
    "policy": ("src/limits/policy.c", "src/prim/linux.c"),
    "wire": ("src/limits/wire.c",),
}
"""By the name of their file, with what they test."""


@dataclass(frozen=True)
class Outcome:
    """One target's run. `covered`: edges, of `edges` there are; `features`: edges by how often, values compared."""

    target: str
    executions: int
    a_second: int
    covered: int
    edges: int
    features: int
    kept: int
    found: tuple[Path, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--only", default=",".join(TARGETS))
    chosen = parser.parse_args()
    clang = compiler()
    if clang is None:
        print("fuzz: skipped, there is no clang with a fuzzer's runtime here (Debian: clang-14, libclang-rt-14-dev)")
        return 0
    outcomes = [fuzz(target, clang, chosen.minutes) for target in chosen.only.split(",")]
    print("target    executions   a second   edges reached   features   inputs kept   findings")
    for one in outcomes:
        reached = f"{one.covered} of {one.edges}"
        print(
            f"{one.target:8} {one.executions:12,} {one.a_second:10,} {reached:>15} {one.features:10,} {one.kept:13,}"
            f"   {', '.join(map(str, one.found)) or 'none'}"
        )
    return int(any(one.found for one in outcomes))


def compiler() -> str | None:
    """The first clang that can build a target."""
    names = ["clang", *(Path(path).name for path in sorted(glob.glob("/usr/bin/clang-[0-9]*")))]  # noqa: PTH207
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "try.c"
        source.write_text("int LLVMFuzzerTestOneInput(const char *at, long size) { return at == 0 && size > 0; }\n")
        for name in filter(shutil.which, names):
            done = subprocess.run([name, *FLAGS, source, "-o", f"{work}/try"], capture_output=True, check=False)
            if done.returncode == 0:
                return name
    return None


def fuzz(target: str, clang: str, minutes: float) -> Outcome:
    corpus, program = KEPT / target, KEPT / f"{target}.bin"
    corpus.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    sources = [NATIVE / each for each in (f"tests/fuzz/{target}.c", *TARGETS[target])]
    include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    subprocess.run([clang, *FLAGS, *include, *sources, "-o", program], check=True)
    before = set(FOUND.iterdir())
    limits = [f"-max_total_time={int(minutes * 60)}", f"-max_len={MOST_BYTES}", "-timeout=5", "-rss_limit_mb=1024"]
    limits += ["-print_final_stats=1", f"-artifact_prefix={FOUND}/{target}-"]
    begin_with(target, corpus)
    done = subprocess.run([program, *limits, corpus], stderr=subprocess.PIPE, text=True, check=False)
    (KEPT / f"{target}.log").write_text(done.stderr)
    found = tuple(sorted(set(FOUND.iterdir()) - before))
    if done.returncode and not found:
        raise SystemExit(f"fuzz: {target} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return outcome(target, done.stderr, found, sum(1 for _ in corpus.iterdir()))


def begin_with(target: str, corpus: Path) -> None:
    """Good inputs: of packets the golden vectors."""
    for file in SEEDS.glob(f"{target}/*"):
        shutil.copy2(file, corpus / file.name)
    if target == "wire":
        for line in VECTORS.read_text().splitlines():
            if line and not line.startswith("#"):
                name, packet = line.split()
                (corpus / name).write_bytes(bytes.fromhex(packet))


def outcome(target: str, said: str, found: tuple[Path, ...], kept: int) -> Outcome:
    """Out of what libFuzzer says."""
    (edges,) = re.findall(r"Loaded 1 PC tables \((\d+) PCs\)", said)
    *_, (covered, features) = re.findall(r"cov: (\d+) ft: (\d+)", said)
    stats = dict(statistics(said))
    executions, a_second = stats.get("number_of_executed_units", 0), stats.get("average_exec_per_sec", 0)
    return Outcome(target, executions, a_second, int(covered), int(edges), int(features), kept, found)


def statistics(said: str) -> Iterator[tuple[str, int]]:
    for name, value in re.findall(r"stat::(\w+):\s+(\d+)", said):
        yield name, int(value)


if __name__ == "__main__":
    sys.exit(main())
