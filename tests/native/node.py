"""A node for tests of the library: a broker in a process of its own, grants, and programs that run under them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hami.wire.policy import CardLimit, LibraryPolicy, encode

from .conftest import Container, Tools

HERE = Path(__file__).resolve().parent


class Node:
    """A node with a broker process and grants; containers are processes started with one of the grants' policies."""

    def __init__(self, root: Path, container: Container) -> None:
        self.root = root
        self.container = container
        self.nvml = container.tools.folder / "sim/libnvidia-ml.so.1"
        self.agent: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[str]] = []

    def start_agent(
        self, *, nvml: bool = False, exceeded: str = "report", before: Sequence[str] = (), **more: str
    ) -> None:
        """`before` starts it, as prlimit does; `more` is of its environment."""
        words = [*before, sys.executable, HERE / "agent.py", self.root, *([self.nvml, exceeded] if nvml else [])]
        environment = {**os.environ, **self.container.bench.environment, **more}
        self.agent = subprocess.Popen(words, env=environment)
        self.until(lambda: self.state().get("pid") == (self.agent.pid if self.agent else 0), "the agent's state")

    def kill_agent(self) -> None:
        assert self.agent is not None
        self.agent.kill()
        self.agent.wait()

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        if self.agent is not None:
            self.kill_agent()

    def policy(self, key: str, *, mem: int | None = 4096, cores: int = 0, **changes: Any) -> LibraryPolicy:
        folder = self.root / key
        (folder / "broker").mkdir(parents=True, exist_ok=True)
        ledger = folder / "ledger"
        ledger.touch()
        return LibraryPolicy(
            container=f"{key}/main",
            cards=tuple(CardLimit(self.container.bench.uuid(index), mem, cores) for index in (0, 1)),
            ledger=str(ledger),
            broker=str(folder / "broker/sock"),
            **changes,
        )

    def grant(self, key: str, **changes: Any) -> LibraryPolicy:
        """Written where the broker reads it: the limits that hold."""
        policy = self.policy(key, **changes)
        fresh = self.root / key / "policy.new"
        fresh.write_text(encode(policy))
        fresh.replace(self.root / key / "policy")
        return policy

    def mounted(self, policy: LibraryPolicy) -> None:
        """What the next process finds in its container, as it was when the container started."""
        self.container.tools.policy.write_text(encode(policy))

    def start(self, policy: LibraryPolicy, *words: object, **more: str) -> "subprocess.Popen[str]":
        """Returns when it has registered."""
        before = self.sessions()
        self.mounted(policy)
        process: subprocess.Popen[str] = self.container.start(*words, **more)
        self.started.append(process)
        self.until(lambda: self.sessions() > before or process.poll() is not None, "a registration")
        return process

    def watch(self, policy: LibraryPolicy, seconds: int = 60) -> "subprocess.Popen[str]":
        """A program that tells its limit, and again when it changes (`told`); it has told that of the policy."""
        process = self.start(policy, "probe", "watch", seconds)
        assert told(process) == policy.cards[0].mem_mib
        return process

    def state(self) -> dict[str, object]:
        try:
            read: dict[str, object] = json.loads((self.root / "state").read_text())
        except FileNotFoundError:
            return {}
        return read

    def value(self, name: str, **labels: str) -> float:
        found = [
            value
            for family, own, value in self.state().get("samples", [])  # type: ignore[attr-defined]
            if family == name and labels.items() <= own.items()
        ]
        return float(sum(found))

    def clients(self) -> float:
        return self.value("hami_broker_clients")

    def sessions(self) -> float:
        """So many have there been."""
        return self.clients() + self.value("hami_broker_sessions_ended_total")

    def until(self, holds: Callable[[], object], what: str, seconds: float = 15.0) -> float:
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > seconds:
                raise AssertionError(f"no {what} within {seconds} s: {self.state()}")
            time.sleep(0.01)
        return time.monotonic() - begun


@pytest.fixture
def node(tools: Tools, container: Container) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as folder:  # a socket's path has 108 bytes
        made = Node(Path(folder), container)
        yield made
        made.close()
        tools.policy.unlink(missing_ok=True)


def told(process: "subprocess.Popen[str]") -> object:
    """MiB of the first card, by the next line of a program that watches its limit."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())["total_mib"]


def result(process: "subprocess.Popen[str]", seconds: float = 30.0) -> dict[str, object]:
    out, err = process.communicate(timeout=seconds)
    answer: dict[str, object] = json.loads(out.splitlines()[-1]) if out else {}
    return answer | {"stderr": err}
