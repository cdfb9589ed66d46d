"""A node for the scripts beside this: a real broker, grants, and programs that run under them on the card here."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import HERE, NATIVE, STRICT, Bench, finish

AGENT = NATIVE.parent / "tests/native/agent.py"
SOURCE = NATIVE.parent / "src"
SEATS = 4
"""Programs under policies of their own that may start at once."""


@dataclass
class Node:
    """The broker, and the grants it serves."""

    bench: Bench
    root: Path
    uuid: str
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def policy(self, seat: int = 0) -> Path:
        """Where the library of that seat looks for its policy; programs of several seats can start at once."""
        return self.root / f"mounted-{seat}"

    def library(self, seat: int = 0) -> Path:
        return self.bench.work / f"libvgpu-{seat}.so"

    def build(self) -> None:
        """The library again for each seat, its policy at a place of ours, with a door for measurements (inside.c)."""
        work = self.bench.work
        sources = [*sorted((NATIVE / "src").rglob("*.c")), work / "hooks.c", HERE / "inside.c"]
        exports = work / "exports-inside.map"
        exports.write_text((work / "exports.map").read_text().replace("global:", "global:\n    hami_inside_*;"))
        flags = [
            *STRICT,
            "-DHAMI_INSIDE",
            "-fPIC",
            "-fvisibility=hidden",
            f"-I{NATIVE / 'src'}",
            f"-I{NATIVE / 'include'}",
            f"-I{work}",
        ]
        link = [f"-Wl,--version-script={exports}", "-Wl,-Bsymbolic,-z,now", "-ldl", "-lpthread"]
        running = []
        for seat in range(SEATS):
            place = f'-DHAMI_POLICY_PATH="{self.policy(seat)}"'
            command = ["gcc", *flags, place, "-shared", *sources, "-o", self.library(seat), *link]
            running.append(subprocess.Popen(command))
        if sum(each.wait() for each in running):
            raise ValueError("the library does not compile")

    def grant(
        self,
        key: str,
        *,
        cores: int = 0,
        mem: str = "all",
        priority: int = 1,
        broker: bool = True,
        core_policy: str = "force",
    ) -> None:
        folder = self.root / "grants" / key
        (folder / "broker").mkdir(parents=True, exist_ok=True)
        (folder / "ledger").touch()
        lines = [
            "version 1",
            f"container {key}/main",
            f"core_policy {core_policy}",
            f"priority {priority}",
            "fail closed",
        ]
        lines += ["strict 0", f"ledger {folder / 'ledger'}"]
        lines += [f"broker {folder / 'broker/sock'}"] if broker else []
        lines += [f"card {self.uuid} mem_mib {mem} core_percent {cores}", "end", ""]
        fresh = folder / "policy.new"
        fresh.write_text("\n".join(lines))
        fresh.replace(folder / "policy")

    @contextmanager
    def agent(self, exceeded: str = "report") -> Iterator[None]:
        nvml = subprocess.run(
            "ldconfig -p | grep -m1 libnvidia-ml.so.1 | sed 's/.*=> //'",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        if self.bench.simulated:
            nvml = str(self.bench.simulated / "libnvidia-ml.so.1")
        words = [sys.executable, AGENT, self.root / "grants", *([nvml, exceeded] if nvml else [])]
        paths = os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH"))))
        with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": paths}) as process:
            try:
                self.until(lambda: self.state().get("pid") == process.pid, "the broker")
                yield
            finally:
                process.kill()

    def state(self) -> dict[str, Any]:
        try:
            read: dict[str, Any] = json.loads((self.root / "grants/state").read_text())
        except FileNotFoundError:
            return {}
        return read

    def value(self, name: str) -> float:
        return float(sum(value for family, _, value in self.state().get("samples", []) if family == name))

    def sessions(self) -> float:
        """So many have there been."""
        return self.value("hami_broker_clients") + self.value("hami_broker_sessions_ended_total")

    def until(self, holds: Any, what: str, seconds: float = 20) -> float:
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > seconds:
                raise ValueError(f"no {what} within {seconds} s")
            time.sleep(0.01)
        return time.monotonic() - begun

    def start(self, key: str, *words: object) -> subprocess.Popen[str]:
        """Returns when it has read its policy, and registered if it is to."""
        before = self.sessions()
        process = self.begin(key, self.bench.path, *words)
        if "broker " in self.policy().read_text():
            self.until(lambda: self.sessions() > before or process.poll() is not None, "registration")
        else:
            time.sleep(1.5)
        return process

    def begin(self, key: str, *command: object, seat: int = 0) -> subprocess.Popen[str]:
        """Starts it and does not wait: the policy of that seat must stay until it has."""
        return self.bench.start(*command, env=self.seated(key, seat))

    def seated(self, key: str, seat: int) -> dict[str, str]:
        """The environment of a program under that grant; it takes the seat."""
        self.policy(seat).write_text((self.root / "grants" / key / "policy").read_text())
        return self.bench.environment() | {"LD_PRELOAD": str(self.library(seat)), "LIBCUDA_LOG_LEVEL": "3"}

    def run(self, key: str, *words: object) -> dict[str, Any]:
        return finish(self.start(key, *words))
