"""PyTorch programs that stay and do as they are told, so that the same processes are measured again and again.

The same program is up to twice as fast as itself from one process to the next and from one moment to another, where
its host holds it back. So what is compared is measured in turn, in slices of a moment, on the same cores, in medians.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import HERE

HEARD_S = 2.6
"""The broker reads a changed policy once a second, and the library hears of it a second later at most."""


@dataclass
class Live:
    """One `torch_work.py live`."""

    process: "subprocess.Popen[str]"

    def ask(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def answers(self) -> list[float]:
        """Raises ValueError when it has ended instead, with what it said last."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.kill()
            raise ValueError(f"a program ended: {self.end()[-300:]}")
        return [float(word) for word in line.split()]

    def answer(self) -> float:
        return self.answers()[0]

    def end(self) -> str:
        """What it said on stderr."""
        return self.process.communicate(timeout=60)[1]

    def pin(self, cores: Sequence[int]) -> None:
        """All its threads, once it has them: many that start at once need all cores."""
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def command(works: Sequence[str]) -> tuple[object, ...]:
    return (sys.executable, HERE / "torch_work.py", "live", ",".join(works))


def begin(works: Sequence[str], env: Mapping[str, str]) -> Live:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [str(word) for word in command(works)]
    return Live(subprocess.Popen(words, env=dict(env), text=True, **pipes))


def cores(seat: int, each: int) -> list[int]:
    """Of a seat, `each` cores that no other seat has, as far as there are enough."""
    mine = sorted(os.sched_getaffinity(0))
    return [mine[(seat * each + i) % len(mine)] for i in range(each)]


def alone(program: Live, work: str, seconds: float, warm: float = 0.01, slices: int = 1) -> float:
    """Iterations a second while nobody else is told to run; the median of so many slices without a pause."""
    program.ask("run", work, time.monotonic() + warm, seconds, slices)
    return statistics.median(program.answers())


def together(programs: Sequence[tuple[Live, str]], seconds: float, warm: float, slices: int) -> list[list[float]]:
    """Iterations a second of programs that run at the same time, slice by slice."""
    at = time.monotonic() + warm
    for program, work in programs:
        program.ask("run", work, at, seconds, slices)
    return [list(each) for each in zip(*(program.answers() for program, _ in programs), strict=True)]
