"""PyTorch programs that stay and do as they are told, so that the same processes are measured again and again.

The same program is up to twice as fast as itself from one process to the next and from one moment to another, where
its host holds it back. So what is compared is measured in turn, in the same process: it changes its own limit from
moment to moment (`inside.c`).
"""

import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import HERE
from grants import SEATS, Node

WORKS = ("train", "decode", "layer", "matmul", "small")
PAST, RESTING, RICH = -1, -2, -3
"""States of a program: past the library; under RESTING_LIMIT, and hardly measured; and all of it bought before."""
RESTING_LIMIT = 99


@dataclass
class Live:
    """One `torch_program.py`."""

    process: "subprocess.Popen[str]"
    said: Path
    """What it writes to stderr, the library's log too."""

    def ask(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def answers(self) -> list[float]:
        """Raises ValueError when it has ended instead, with what it said last."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.kill()
            raise ValueError(f"a program ended: {self.end()[-900:]}")
        return [float(word) for word in line.split()]

    def told(self, *words: object) -> list[float]:
        self.ask(*words)
        return self.answers()

    def end(self) -> str:
        """What it said on stderr."""
        self.process.communicate(timeout=60)
        return self.said.read_text(errors="replace")

    def pin(self, cores: Sequence[int]) -> None:
        """All its threads, once it has them: many that start at once need all cores."""
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


@dataclass
class Slice:
    """Iterations a second, the GPU time that was paid for one, and what its launches take in a queue just after it."""

    rate: float
    paid_ns: float
    queued_s: float = math.nan


@dataclass
class Pool:
    """As many programs as there are seats, each of every work, under a grant of its own without a limit."""

    node: Node
    programs: list[Live] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        begun = time.monotonic()
        for seat in range(SEATS):
            self.node.grant(f"torch-{seat}")
            env = self.node.seated(f"torch-{seat}", seat)
            if self.node.bench.simulated:
                env["PYTHONPATH"] = str(HERE / "standin")
            kept = self.node.bench.kept_in or self.node.bench.work / "broker.json"
            self.programs.append(begin(WORKS, env, kept.with_name(f"torch-{seat}.log")))
        for what in ("PyTorch is there", "all programs are warm"):
            for program in self.programs:
                program.answers()
            print(f"{time.monotonic() - begun:6.1f} s: {what}", flush=True)
        for seat, program in enumerate(self.programs):
            program.pin(cores(seat, 3))

    def end(self) -> None:
        self.said = [program.end()[-600:] for program in self.programs]


def begin(works: Sequence[str], env: Mapping[str, str], said: Path) -> Live:
    words = [sys.executable, str(HERE / "torch_program.py"), ",".join(works)]
    with said.open("w") as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        return Live(subprocess.Popen(words, env=dict(env), text=True, **pipes), said)


def cores(seat: int, each: int) -> list[int]:
    """Of a seat, `each` cores that no other seat has, as far as there are enough."""
    mine = sorted(os.sched_getaffinity(0))
    return [mine[(seat * each + i) % len(mine)] for i in range(each)]


def paced(
    programs: Sequence[tuple[Live, str]], warm: float, seconds: float, states: Sequence[Sequence[int]]
) -> list[list[Slice]]:
    """Of programs that run at the same time, each through its own states: its slices."""
    at = time.monotonic() + warm
    for (program, work), own in zip(programs, states, strict=True):
        program.ask("paced", work, at, warm, seconds, *own)
    told = [program.answers() for program, _ in programs]
    return [[Slice(*pair) for pair in zip(each[::2], each[1::2], strict=True)] for each in told]


def held(program: Live, work: str, times: tuple[float, float], states: Sequence[int]) -> list[Slice]:
    """Of a program by itself: slices one after the other, each warm for so long and measured for so long, seconds."""
    told = program.told("held", work, *times, *states)
    return [Slice(*told[at : at + 3]) for at in range(0, len(told), 3)]


def between(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The mean of the ones over that of the others, measured beside them, and its 95 % interval: pairs drawn again."""
    dice = random.Random(1)
    pairs = list(zip(values, others, strict=True))

    def ratio(some: Sequence[tuple[float, float]]) -> float:
        return sum(one for one, _ in some) / sum(other for _, other in some)

    drawn = sorted(ratio(dice.choices(pairs, k=len(pairs))) for _ in range(1000))
    return ratio(pairs), drawn[25], drawn[974]


def mean(slices: Sequence[Slice]) -> float:
    return statistics.mean(each.rate for each in slices)
