"""Sections of `limits.py`: which names are hooked, and every way to take memory."""

import subprocess
import sys
from pathlib import Path

from bench import NATIVE, Bench


def names(bench: Bench) -> None:
    """Every export of the driver and of NVML has a class, and cuGetProcAddress answers with exported addresses only."""
    lists = []
    for soname in ("libcuda.so.1", "libnvidia-ml.so.1"):
        found = subprocess.run(
            ["sh", "-c", f"ldconfig -p | grep -m1 '{soname}' | sed 's/.*=> //'"],
            capture_output=True,
            text=True,
            check=False,
        )
        places = [
            Path(found.stdout.strip()),
            Path("/usr/local/nvidia/lib64") / soname,
            bench.simulated or Path("/none"),
        ]
        path = next((each for each in places if each.is_file()), None)
        if bench.simulated:
            path = bench.simulated / soname
        if path is None:
            bench.add("names", soname, "not found", "", None)
            continue
        symbols = subprocess.run(
            ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=False
        ).stdout
        target = bench.work / f"{soname}.names"
        target.write_text("\n".join(sorted(line.split()[-1].split("@")[0] for line in symbols.splitlines())) + "\n")
        lists.append(target)
    check = subprocess.run(
        [sys.executable, NATIVE / "tools/intercept.py", "check", NATIVE / "src/intercept/table.txt", *lists],
        capture_output=True,
        text=True,
        check=False,
    )
    print(check.stdout)
    bench.add(
        "names",
        "exports without a class",
        check.stdout.splitlines()[-1][-40:],
        "0",
        check.returncode == 0,
        all=check.stdout,
    )
    plain = bench.probe("symbols", lists[0], env=bench.environment())
    bench.add(
        "names", "cuGetProcAddress beyond the exports", plain.get("not_exported_addresses"), "known", None, **plain
    )


ROUTES = (
    "linear",
    "small",
    "pitch",
    "managed",
    "async",
    "async_free_sync",
    "own_pool",
    "graph_node",
    "captured",
    "vmm",
    "vmm_mapped",
    "vmm_retained",
    "array",
    "array3d",
    "mipmap",
    "context",
    "module",
    "library",
    "heap",
    "mixed",
)


def routes(bench: Bench) -> None:
    """Every way to take memory stays within 4 GiB by NVML's own account, and the program can go on afterwards."""
    control = bench.probe("mem", "linear", env=bench.environment())
    bench.add(
        "routes",
        "control: linear without the library",
        f"{control.get('nvml_mib')} MiB",
        "> 4160 MiB",
        (control.get("nvml_mib") or 0) > 4160,
    )
    for route in ROUTES:
        got = bench.probe("mem", route, env=bench.environment(memory="4g"))
        held = got.get("nvml_mib", -1)
        ok = "error" not in got and 0 < held <= 4096 + 64 and got["refused_with"] == 2 and got["total_mib"] == 4096
        ok = ok and (got["again"] == 1 or route == "heap")
        bench.add("routes", route, f"{held} MiB", "<= 4160 MiB, OOM, goes on", ok, **got)
