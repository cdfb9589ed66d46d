"""Sections of `limits.py`: which names are hooked, and every way to take memory."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import NATIVE, Bench, finish

from hami.cli.limits.program import ROUTES, STAY


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
        check.stdout.splitlines()[-1],
        "0",
        check.returncode == 0,
        all=check.stdout,
    )
    plain = bench.probe("symbols", lists[0], env=bench.environment())
    bench.add(
        "names", "cuGetProcAddress beyond the exports", plain.get("not_exported_addresses"), "known", None, **plain
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
        fits = "error" not in got and 0 < held <= 4096 + 64
        ok: bool | None = fits and got["refused_with"] == 2 and got["total_mib"] == 4096
        ok = ok and got["again"] == int(route not in STAY)
        shown: object = f"{held} MiB"
        # Memory of another interface, where there is none: then the driver refuses the first without the library, too.
        if got.get("taken_mib") == 0 and bench.probe("mem", route, env=bench.environment()).get("taken_mib") == 0:
            shown, ok = "not to be had here", None
        bench.add("routes", route, shown, "<= 4160 MiB, OOM, goes on", ok, **got)


LENT_MIB = 1024


def lent(bench: Bench, kind: str, env: dict[str, str]) -> list[dict[str, Any]]:
    """What a borrower told, each 50 ms, while its lender lived, when it was killed, and once all was given back.

    `card_mib`: what the whole card held at that moment by NVML, which no library has changed.
    """
    lender = bench.start(bench.path, "lend", kind, LENT_MIB, "keep", 60, env=env)
    assert lender.stdout is not None
    token = json.loads(lender.stdout.readline())["token"]
    borrower = bench.start(bench.path, "borrow", token, 4, 2, env=env)
    assert borrower.stdout is not None
    told: list[dict[str, Any]] = [json.loads(borrower.stdout.readline())]
    if "error" in told[0]:
        lender.kill()
        raise ValueError(told[0]["error"])
    time.sleep(1.5)
    before = bench.probe("nvml", env=bench.environment())["used_mib"]
    lender.kill()
    lender.communicate()
    killed = time.monotonic()
    time.sleep(1.2)
    after = bench.probe("nvml", env=bench.environment())["used_mib"]
    out, _ = borrower.communicate(timeout=60)
    told += [json.loads(line) for line in out.splitlines()]
    given = next(at for at, one in enumerate(told) if "returned" in one)
    held = [one for one in told[:given] if "nvml_mib" in one]
    return [
        held[10] | {"card_mib": before},
        held[-5] | {"card_mib": after, "least_mib": min(one["used_mib"] for one in held), "killed": killed},
        told[-1] | {"card_mib": bench.probe("nvml", env=bench.environment())["used_mib"]},
    ]


def loans(bench: Bench) -> None:
    """Memory that another process made: who is shown to hold it, and that it stays charged when its maker is killed."""
    for kind in ("ipc", "fd"):
        plain = lent(bench, kind, bench.environment())
        for name, what in (("nvml_mib", "the borrower by NVML"), ("card_mib", "the whole card")):
            shown = " ".join(f"{one[name]:.0f}" for one in plain)
            bench.add("loans", f"{kind}: {what}: lender lives, killed, given back", f"{shown} MiB", "", None)
        ours = lent(bench, kind, bench.environment(memory="8g"))
        shown = " ".join(f"{one['used_mib']:.0f}" for one in ours)
        ok = ours[1]["least_mib"] >= LENT_MIB and ours[2]["used_mib"] < LENT_MIB
        bench.add("loans", f"{kind}: charged: lender lives, killed, given back", f"{shown} MiB", ">= 1024, < 1024", ok)


def at_once(bench: Bench) -> None:
    """Eight processes that make contexts at once, or load PTX with 500 MiB of data, at the edge of the limit."""
    size = bench.probe("info", env=bench.environment())["nvml_mib"]
    for what, words, limit in (
        ("contexts", ("hold", 2, 3), round(3.5 * size)),
        ("modules", ("module", "text", 500, 3), round(8 * size) + 3 * 520),
    ):
        env = bench.environment(memory=f"{limit}m", tenant=what) | {"PROBE_BEGIN_AT": f"{time.monotonic() + 6:.3f}"}
        idle = bench.probe("nvml", env=bench.environment())["used_mib"]
        running, most = [bench.start(bench.path, *words, env=env) for _ in range(8)], 0
        while any(one.poll() is None for one in running):
            most = max(most, bench.probe("nvml", env=bench.environment())["used_mib"] - idle)
        ends = [finish(one) for one in running]
        made = sum("held_mib" in one or one.get("loaded") == 0 for one in ends)
        bound = limit + (size if what == "contexts" else 520)
        shown, ok = f"{made} made, {most} MiB at most", made == 3 and most <= bound
        bench.add("at once", f"8 {what}, limit {limit} MiB", shown, f"3 made, <= {bound:.0f}", ok, ends=ends)
