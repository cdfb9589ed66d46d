"""What the scripts beside this share: the library and the probe built, programs run, rows kept as they are found."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parent.parent / "native"
sys.path.insert(0, str(HERE.parent.parent / "src"))
from hami.cli.limits.program import Program, finish, spread, steady  # noqa: E402  nothing is installed where this runs

__all__ = ["HERE", "NATIVE", "STRICT", "Bench", "build", "card", "finish", "spread", "steady", "unlimited"]
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

    def uuid(self, at: int = 0) -> str:
        """Of a card that programs here see."""
        return str(self.probe("info", env={**self.environment(), "PROBE_DEVICE": str(at)})["uuid"])

    def calibrate(self) -> dict[str, Any]:
        """How much work a nanosecond is, on the card as it is when busy; a simulated one is told in nanoseconds."""
        if self.simulated:
            self.rounds_a_ns = "1"
            return {}
        measured = self.probe("run", "spin", 1, 100_000, env=self.environment())
        self.rounds_a_ns = str(measured.get("rounds_a_ns"))
        return measured

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


def card(bench: Bench) -> dict[str, Any]:
    smi = subprocess.run(
        "nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader",
        shell=True,
        check=False,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {"smi": smi, **bench.probe("info", env=bench.environment())}
