#!/usr/bin/env python3
"""Holds libvgpu to its figures on a real card (or, with --simulated, shows that this program works without one).

Needs gcc and Python 3.11, nothing else of the project; PyTorch rows are skipped where torch is missing. Each figure is
a program's throughput against the same program without the library in the same run. Prints one table, writes JSON.

    python3 tests/gpu/limits.py [--out FOLDER] [--only SECTION,...] [--seconds N] [--quick]
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent.parent / "native"
sys.path.insert(0, str(HERE.parent.parent / "src"))
from hami.cli.limits.program import Program, finish, spread, steady  # noqa: E402  nothing is installed where this runs

STRICT = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wconversion"]


@dataclass
class Row:
    section: str
    name: str
    measured: object
    target: str
    ok: bool | None
    detail: dict[str, Any] = field(default_factory=dict)


class Bench(Program):
    """Where things are, and what has been found."""

    def __init__(self, work: Path, seconds: float, quick: bool, simulated: Path | None, match: str = "") -> None:
        super().__init__(work / "probe", work / "libvgpu.so", work, simulated)
        self.seconds, self.quick, self.match = seconds, quick, match
        self.rows: list[Row] = []
        self.rates: dict[tuple[str, int, int], float] = {}
        self.kept_in: Path | None = None
        self.about: dict[str, Any] = {}

    def add(self, section: str, name: str, measured: object, target: str, ok: bool | None, **detail: object) -> None:
        row = Row(section, name, measured, target, ok, dict(detail))
        self.rows.append(row)
        verdict = {True: "ok", False: "FAIL", None: "-"}[ok]
        print(f"{section:10} {name:44} {measured!s:>24}  {target:28} {verdict}", flush=True)
        self.keep()

    def keep(self) -> None:
        """At each row: a run that is cut short has what it found until then."""
        if self.kept_in is not None:
            answer = self.about | {"rows": [asdict(each) for each in self.rows]}
            self.kept_in.write_text(json.dumps(answer, indent=1))


def build(bench: Bench) -> None:
    work = bench.work
    subprocess.run(
        [sys.executable, NATIVE / "tools/intercept.py", "make", NATIVE / "src/intercept/table.txt", work], check=True
    )
    sources = [*sorted((NATIVE / "src").rglob("*.c")), work / "hooks.c"]
    flags = [*STRICT, "-fPIC", "-fvisibility=hidden", f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}", f"-I{work}"]
    link = [
        f"-Wl,--version-script={work / 'exports.map'}",
        "-Wl,-Bsymbolic,-z,relro,-z,now,--no-undefined",
        "-ldl",
        "-lpthread",
    ]
    subprocess.run(["gcc", *flags, "-shared", *sources, "-o", bench.library, *link], check=True)
    probe = [*sorted((NATIVE / "probe").glob("*.c")), NATIVE / "src/intercept/elf.c"]
    include = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}"]
    subprocess.run(["gcc", *STRICT, *include, *probe, "-o", bench.path, "-ldl", "-lpthread"], check=True)


# ---- sections ----


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


SHORT_NS = 10_000
"""Kernels not longer than this can be held back by the host that launches them."""


def unlimited(bench: Bench, work: str, ns: int, host_ns: int = 0, seconds: float = 2.5) -> float:
    """Launches a second without a limit; of short queued kernels as many as the card has room for."""
    key = (work, ns, host_ns)
    if key not in bench.rates and work == "spin" and ns <= SHORT_NS and host_ns == 0:
        bench.rates[key] = 1e9 / bench.probe("full", ns, env=bench.environment())["full_ns"]
    if key not in bench.rates:
        got = bench.probe("run", work, seconds, ns, host_ns, env=bench.environment())
        bench.rates[key] = steady(got, 0.5)
    return bench.rates[key]


QUEUED = (
    ("spin", 2_000),
    ("spin", 10_000),
    ("spin", 100_000),
    ("spin", 1_000_000),
    ("spin", 20_000_000),
    ("spin", 50_000_000),
    ("sync", 5_000_000),
    ("graph1", 1_000_000),
    ("graph10", 100_000),
    ("graph1000", 10_000),
    ("coop", 100_000),
    ("ex", 100_000),
    ("ptds", 100_000),
    ("memset", 256 << 20),
    ("copy", 256 << 20),
)


def shares(bench: Bench) -> None:
    """One tenant: share of unlimited throughput at a limit."""
    limits = (20, 50, 80) if bench.quick else (5, 20, 50, 80, 95)
    for work, ns in QUEUED:
        if bench.quick and (work, ns) in (("spin", 50_000_000), ("graph1", 1_000_000), ("ex", 100_000)):
            continue
        chosen = [limit for limit in limits if re.search(bench.match, f"{work} {ns} at {limit}")]
        if not chosen:
            continue
        solo = unlimited(bench, work, ns)
        seconds = 11 if ns >= 20_000_000 and work == "spin" else bench.seconds
        for limit in chosen:
            got = bench.probe("run", work, seconds, ns, env=bench.environment(limit))
            share = steady(got, 1.0) / solo * 100 if solo else 0.0
            first = sum(got.get("tenths", [])[:10]) / solo * 100 if solo else 0.0
            detail = {"first_second": round(first, 1), "cv": round(spread(got, 1.0), 2), "solo": round(solo, 1)}
            if "error" in got:
                detail |= {"error": got}
            name = (
                f"{work} {ns / 1000:g} us at {limit}"
                if work not in ("memset", "copy")
                else f"{work} 256 MiB at {limit}"
            )
            bench.add(
                "shares",
                name,
                f"{share:.2f} (1st s {first:.0f}, cv {detail['cv']})",
                f"{limit} +- 1",
                abs(share - limit) <= 1,
                **detail,
            )
    broken = bench.probe(
        "run", "spin", bench.seconds, 100_000, env=bench.environment(20) | {"GPU_CORE_UTILIZATION_POLICY": "disable"}
    )
    share = steady(broken, 1.0) / unlimited(bench, "spin", 100_000) * 100
    bench.add("shares", "control: limiter off at 20", f"{share:.1f}", "> 21", share > 21)


def hostbound(bench: Bench) -> None:
    """Programs bound by their host: speed is min(1, limit / occupied) of solo."""
    limits = (20, 50) if bench.quick else (20, 50, 80)
    for work, ns, host in (
        ("mixed", 10_000, 12_000),
        ("spin", 2_000, 12_000),
        ("spin", 8_000, 12_000),
        ("spin", 20_000, 12_000),
    ):
        if not re.search(bench.match, f"{work} {ns} + {host}"):
            continue
        queued, solo = unlimited(bench, work, ns), unlimited(bench, work, ns, host)
        occupied = solo / queued * 100
        for limit in limits:
            got = bench.probe("run", work, bench.seconds, ns, host, env=bench.environment(limit))
            rate = steady(got, 1.0)
            ideal = min(100.0, limit / occupied * 100)
            speed = rate / solo * 100
            used = rate / queued * 100
            ok = used <= limit + 1 and speed >= 0.98 * ideal
            bench.add(
                "hostbound",
                f"{work} {ns / 1000:g} us + {host / 1000:g} us host at {limit}",
                f"{speed:.1f} (ideal {ideal:.1f})",
                f"occupied <= {limit + 1}, >= 98 %",
                ok,
                occupied=used,
                solo_occupied=occupied,
            )


def streams(bench: Bench) -> None:
    """Four threads, each with a stream of its own: kernels of several streams may run at the same time."""
    for ns in (20_000, 100_000, 1_000_000):
        seconds = bench.seconds
        full = bench.probe("threads", 4, seconds, ns, env=bench.environment())["rate"]
        at_once = full * ns / 1e9
        bench.add("streams", f"4 streams, {ns / 1000:g} us, no limit", f"{at_once:.2f} kernels at once", "", None)
        for limit in (20, 50, 80):
            if not re.search(bench.match, f"streams {ns} at {limit}"):
                continue
            held = bench.probe("threads", 4, seconds, ns, env=bench.environment(limit))["rate"]
            share = held / full * 100
            bench.add(
                "streams",
                f"4 streams, {ns / 1000:g} us at {limit}",
                f"{share:.1f} (kernels' time {held * ns / 1e7:.1f})",
                f"{limit} +- 1",
                abs(share - limit) <= 1,
                full=full,
                held=held,
            )


def pair(
    bench: Bench, caps: tuple[int | None, int | None], works: tuple[tuple[str, int, int], tuple[str, int, int]]
) -> list[dict[str, Any]]:
    running = [
        bench.start(
            bench.path,
            "run",
            work,
            bench.seconds + 2,
            ns,
            host,
            env=bench.environment(cap, tenant=f"t{index}"),
        )
        for index, (cap, (work, ns, host)) in enumerate(zip(caps, works, strict=True))
    ]
    return [finish(each) for each in running]


def tenants(bench: Bench) -> None:
    """Two tenants on the card, each capped."""
    for ns in (100_000, 1_000_000):
        native = pair(bench, (None, None), (("spin", ns, 0), ("spin", ns, 0)))
        parts = [steady(each, 2.0) / unlimited(bench, "spin", ns) * 100 for each in native]
        bench.add(
            "tenants",
            f"for comparison: two without limits, {ns / 1000:g} us",
            f"{parts[0]:.1f} {parts[1]:.1f} sum {sum(parts):.1f}",
            "",
            None,
            parts=parts,
        )
    cases = [
        ((30, 70), (("spin", 100_000, 0), ("spin", 100_000, 0))),
        ((30, 70), (("spin", 1_000_000, 0), ("spin", 1_000_000, 0))),
        ((30, 70), (("spin", 10_000, 0), ("spin", 1_000_000, 0))),
        ((30, 70), (("sync", 5_000_000, 0), ("spin", 100_000, 0))),
        ((50, 50), (("spin", 1_000_000, 0), ("spin", 1_000_000, 0))),
        ((10, 90), (("spin", 100_000, 0), ("spin", 100_000, 0))),
    ]
    for caps, works in cases[:3] if bench.quick else cases:
        got = pair(bench, caps, works)
        parts = [steady(each, 2.0) / unlimited(bench, *work) * 100 for each, work in zip(got, works, strict=True)]
        ok = all(abs(part - cap) <= 1.5 for part, cap in zip(parts, caps, strict=True)) and sum(parts) >= 98
        label = " and ".join(f"{work} {ns / 1000:g} us" for work, ns, _ in works)
        bench.add(
            "tenants",
            f"{caps[0]}/{caps[1]}: {label}",
            f"{parts[0]:.1f} {parts[1]:.1f} sum {sum(parts):.1f}",
            "each +- 1.5, sum >= 98",
            ok,
            parts=parts,
        )


def overhead(bench: Bench) -> None:
    """Host time that the library adds."""
    count = 200_000 if bench.quick else 1_000_000
    for label, env, most in (
        ("unlimited slice", bench.environment(0, memory="64g"), 10),
        ("limit 99, not blocked", bench.environment(99), 40),
    ):
        got = bench.probe("launches", count, env=env)
        added = got["added_ns"]
        ok = added <= most and not got["same_address"]
        bench.add(
            "overhead",
            f"null launch, {label}",
            f"{added:+.0f} ns of {got['direct_ns']:.0f}",
            f"<= {most} ns",
            ok,
            **got,
        )
    got = bench.probe("allocs", 4000, env=bench.environment(memory="16g"))
    change = got["added_ns"] / got["direct_ns"] * 100
    bench.add("overhead", "cuMemAlloc + cuMemFree, 2 MiB", f"{change:+.2f} %", "<= 1 %", change <= 1, **got)


def init(bench: Bench) -> None:
    """64 processes start CUDA at once. Another holds the card open meanwhile: waking a sleeping card takes seconds."""

    def together(env: dict[str, str]) -> float:
        running = [bench.start(bench.path, "init", env=env) for _ in range(64)]
        return statistics.median(finish(each).get("init_ms", float("nan")) for each in running)

    holder = bench.start(bench.path, "run", "sync", 120, 1_000_000, 50_000_000, env=bench.environment())
    time.sleep(3)
    one = [bench.probe("init", env=env)["init_ms"] for env in (bench.environment(), bench.environment(50, memory="4g"))]
    plain, ours = [], []
    for _ in range(2):
        plain.append(together(bench.environment()))
        ours.append(together(bench.environment(50, memory="4g")))
    told = bench.probe("init", env=bench.environment(50, memory="4g") | {"LIBCUDA_LOG_LEVEL": "3"}).get("stderr")
    holder.kill()
    holder.communicate()
    added = min(ours) - min(plain)
    bench.add(
        "init",
        "64 x cuInit at once, median",
        f"{min(plain):.0f} -> {min(ours):.0f} ms",
        "+ <= 5 ms",
        added <= 5,
        plain=plain,
        ours=ours,
        one=one,
        told=told,
    )


def kills(bench: Bench) -> None:
    """Processes killed at random points, eight at a time, give their memory back, and nobody waits for them."""
    env = bench.environment(50, memory="4g")
    slowest, rounds = 0.0, 5 if bench.quick else 25
    usual = statistics.median(timed(bench, env)[0] for _ in range(3))
    for index in range(rounds):
        victims = [bench.start(bench.path, "mem", "linear", 64, env=env) for _ in range(8)]
        for number, victim in enumerate(victims):
            time.sleep(0.005 + 0.2 * (((index * 8 + number) * 0.618) % 1))
            victim.send_signal(signal.SIGKILL)
        took, taken = timed(bench, env)
        slowest = max(slowest, took)
        for victim in victims:
            victim.communicate()
        if taken < 3072:
            bench.add("kills", f"after {(index + 1) * 8} kills", f"{taken} MiB", "memory is back", False)
            return
    bench.add(
        "kills",
        f"{rounds * 8} SIGKILLs at random points",
        f"neighbour {slowest:.2f} s, {usual:.2f} without",
        "memory back, <= 1 s more",
        slowest <= usual + 1,
    )


def timed(bench: Bench, env: dict[str, str]) -> tuple[float, int]:
    """Seconds that a neighbour takes from its start to its end, and the MiB it got."""
    begun = time.monotonic()
    got = bench.probe("mem", "linear", 256, env=env)
    return time.monotonic() - begun, got.get("taken_mib", 0)


def without_torch(bench: Bench) -> bool:
    """Says so where PyTorch cannot be measured."""
    command = [sys.executable, "-c", "import torch"]
    missing = bench.simulated or subprocess.run(command, capture_output=True, check=False).returncode
    if missing:
        bench.add("torch", "PyTorch", "not here", "", None)
    return bool(missing)


def torch_program(bench: Bench, *words: object, env: dict[str, str]) -> dict[str, Any]:
    return finish(bench.start(sys.executable, HERE / "torch_work.py", *words, env=env), 120)


def fill(bench: Bench) -> None:
    """PyTorch fills its slice, is refused, and goes on."""
    if without_torch(bench):
        return
    for label, extra in (
        ("default", {}),
        ("expandable_segments", {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ("cudaMallocAsync", {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}),
    ):
        got = torch_program(bench, "fill", env=bench.environment(memory="4g") | extra)
        ok = bool(got.get("oom") and got.get("goes_on") and got.get("total_mib") == 4096)
        ok = ok and got.get("nvml_mib", 1e9) <= 4160
        bench.add(
            "torch",
            f"fill to OOM, {label}",
            f"{got.get('nvml_mib')} MiB",
            "OutOfMemoryError, goes on, <= 4160",
            ok,
            **got,
        )


def torch_speed(bench: Bench) -> None:
    """PyTorch: steps a second at a limit, against what the card has room for."""
    if without_torch(bench):
        return
    works = ("layer", "train", "decode", "matmul")
    wanted = [
        (work, limit)
        for work in works
        for limit in (80, 50, 20)
        if re.search(bench.match, f"{work} at {limit}") and not (bench.quick and limit != 50)
    ]
    names = sorted({work for work, _ in wanted})
    solos = torch_program(bench, "speed", ",".join(names), bench.seconds, env=bench.environment())
    for work, limit in wanted:
        env = bench.environment(limit, memory="64g")
        got = torch_program(bench, "speed", work, bench.seconds, env=env).get(work)
        solo = solos.get(work)
        if got is None or solo is None:
            bench.add("torch", f"{work} at {limit}", "error", "", False, got=got, solos=solos)
            continue
        judge_speed(bench, work, limit, got, solo)


def paired(bench: Bench) -> None:
    """What the library costs where it holds nothing back: without it, without a limit of time, and at 99, in turn."""
    if without_torch(bench):
        return
    kinds = {
        "alone": bench.environment(),
        "no limit of time": bench.environment(0, memory="64g"),
        "limit 99": bench.environment(99, memory="64g"),
    }
    for work in ("train", "decode"):
        if not re.search(bench.match, work):
            continue
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(2 if bench.quick else 3):
            for kind, env in kinds.items():
                rates[kind].append(torch_program(bench, "speed", work, bench.seconds, env=env)[work]["rate"])
        alone = statistics.median(rates["alone"])
        scatter = (max(rates["alone"]) - min(rates["alone"])) / alone * 100
        for kind, most in (("no limit of time", 0.3), ("limit 99", 1.0)):
            lost = (1 - statistics.median(rates[kind]) / alone) * 100
            measured = f"{lost:+.2f} % (alone scatters by {scatter:.1f})"
            bench.add("paired", f"{work}, {kind}", measured, f"<= {most} % lost", lost <= most, rates=rates)


def judge_speed(bench: Bench, work: str, limit: int, got: dict[str, Any], solo: dict[str, Any]) -> None:
    occupied = solo["busy"] * 100
    ideal = min(100.0, limit / occupied * 100)
    speed = got["rate"] / solo["rate"] * 100
    measured, target, ok = f"{speed:.1f} (ideal {ideal:.1f})", "within 4 % of ideal", abs(speed / ideal - 1) <= 0.04
    if ideal == 100.0:
        target, ok = ">= 96 % of solo", speed >= 96
    elif work == "matmul":  # alone it is held by the card's power, throttled it clocks higher: its time counts
        used = got["occupied"] * 100
        measured = f"{used:.1f} of the time ({speed:.1f} of speed)"
        target, ok = f"{limit} +- 2 of the time", abs(used - limit) <= 2
    name = f"{work} at {limit} (alone {occupied:.0f} % busy)"
    bench.add("torch", name, measured, target, ok, got=got, solo=solo)


SECTIONS = {
    "names": names,
    "routes": routes,
    "shares": shares,
    "hostbound": hostbound,
    "streams": streams,
    "tenants": tenants,
    "overhead": overhead,
    "init": init,
    "kills": kills,
    "fill": fill,
    "torch": torch_speed,
    "paired": paired,
}


def card(bench: Bench) -> dict[str, Any]:
    smi = subprocess.run(
        "nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader",
        shell=True,
        check=False,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {"smi": smi, **bench.probe("info", env=bench.environment())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--match",
        default="",
        help="of shares, hostbound and torch, only rows like this: 'spin 2000 at 50', 'layer at 20'",
    )
    parser.add_argument("--simulated", type=Path, help="folder with the simulated libcuda.so.1 and libnvidia-ml.so.1")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.seconds, chosen.quick, chosen.simulated, chosen.match)
        build(bench)
        about = card(bench)
        print(about)
        calibration = bench.probe("run", "spin", 1, 100_000, env=bench.environment())
        bench.rounds_a_ns = str(calibration.get("rounds_a_ns"))
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
