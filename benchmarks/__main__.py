"""`python -m benchmarks`: every benchmark, one after the other, as tables. Takes about a quarter of an hour."""

import subprocess
import sys

from benchmarks.report import console

RUNS = (
    ("filter", "--names", "500"),
    ("filter", "--names", "5000"),
    ("engine", "--policies"),
    ("throughput", "--qps", "default"),
    ("throughput", "--qps", "high"),
    ("throughput", "--qps", "high", "--policy", "spread"),
    ("burst",),
    ("restart",),
    ("agent",),
)


def main() -> int:
    failed = 0
    for name, *flags in RUNS:
        console.rule(" ".join(["benchmarks." + name, *flags]))
        failed += bool(subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], check=False).returncode)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
