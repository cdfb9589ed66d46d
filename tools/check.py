#!/usr/bin/env python3
"""The gates: style, types, import direction, C warnings, hygiene, tests that can be collected. Changes nothing.

Prints one line a gate and, for a gate that fails, all it said. Exit status 1
when any fails. Gates are independent, so two run at a time.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
PYTHON_PLACES = ("src", "tests", "benchmarks", "tools")
C_WARNINGS = "-Wall -Wextra -Werror -Wshadow -Wconversion"

# What must never be committed, with the reason a reader gets.
BANNED = {
    r"/(work|root|home/[a-z]+)/(?!\.)[a-z]": "a path of somebody's machine",
    r"pythonhosted\.org|pypi\.org/simple|proxy\.golang\.org|registry\.npmjs\.org": "a package registry's host",
    r"BEGIN (RSA |EC )?PRIVATE KEY-----\n[A-Za-z0-9+/]{40}": "a private key",
}
NOT_SCANNED = {"tools/check.py", "requirements.lock"}


class Gate(NamedTuple):
    name: str
    run: Callable[[], str]
    """Returns what is wrong, empty when nothing is."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "gates", nargs="*", metavar="GATE", help=f"one of {', '.join(g.name for g in gates())}; all when none"
    )
    wanted = parser.parse_args().gates
    unknown = set(wanted) - {gate.name for gate in gates()}
    if unknown:
        parser.error(f"no such gate: {', '.join(sorted(unknown))}")
    chosen = [gate for gate in gates() if not wanted or gate.name in wanted]
    with ThreadPoolExecutor(max_workers=2) as pool:
        good = list(pool.map(report, chosen))
    return 0 if all(good) else 1


def gates() -> tuple[Gate, ...]:
    places = [place for place in PYTHON_PLACES if (ROOT / place).is_dir()]
    return (
        Gate("types", lambda: output([BIN / "mypy", "src", "benchmarks"])),
        # A module of tests that cannot be imported would be told of at the end of the whole run otherwise.
        Gate("tests", lambda: output([BIN / "python", "-m", "pytest", "--collect-only", "-qq"])),
        Gate("c-gcc", lambda: compile_c("gcc", "gcc")),
        Gate("c-clang", lambda: compile_c("clang", f"{BIN / 'python'};-m;ziglang;cc")),
        Gate("lint", lambda: output([BIN / "ruff", "check", "--quiet", *places])),
        Gate("format", lambda: output([BIN / "ruff", "format", "--check", "--quiet", *places])),
        Gate("imports", lambda: output([BIN / "lint-imports"])),
        Gate("hygiene", hygiene),
    )


def report(gate: Gate) -> bool:
    started = time.monotonic()
    wrong = gate.run()
    seconds = time.monotonic() - started
    print(f"{'FAIL' if wrong else 'ok  '} {gate.name:<10} {seconds:5.1f} s", flush=True)
    if wrong:
        print(wrong, flush=True)
    return not wrong


def output(command: list[object], environment: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit status {done.returncode}"


def compile_c(name: str, compiler: str) -> str:
    """Configure and build native/ with one compiler, warnings as errors, in a folder of its own."""
    build = ROOT / "build" / f"check-{name}"
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    configure = [BIN / "cmake", "-S", ROOT / "native", "-B", build, "-G", "Ninja"]
    configure += [
        f"-DCMAKE_C_COMPILER={compiler}",
        f"-DCMAKE_C_FLAGS={C_WARNINGS}",
        "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
    ]
    return output(configure, environment) or output([BIN / "cmake", "--build", build], environment)


def hygiene() -> str:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = []
    for name in listing.stdout.splitlines():
        path = ROOT / name
        if name in NOT_SCANNED or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        text = path.read_text(errors="replace")
        for pattern, reason in BANNED.items():
            for hit in re.finditer(pattern, text):
                line = text.count("\n", 0, hit.start()) + 1
                found.append(f"{name}:{line}: {reason}: {hit.group()}")
    return "\n".join(found)


if __name__ == "__main__":
    sys.exit(main())
