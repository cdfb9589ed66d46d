"""Sections of `broker.py`: PyTorch programs as tenants of one card."""

import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import HERE, finish
from grants import Node
from torch_live import HEARD_S, Live, alone, begin, cores, together
from torch_rows import without_torch

GROUPS = (
    ("two layers", ("layer", "layer"), (30, 70)),
    ("two training steps", ("train", "train"), (30, 70)),
    ("four layers", ("layer", "layer", "layer", "layer"), (25, 25, 25, 25)),
    ("four layers, held by nothing", ("layer", "layer", "layer", "layer"), (99, 99, 99, 99)),
    ("a light one beside a training step", ("small", "train"), (30, 70)),
)


def release(running: list[subprocess.Popen[str]], go: Path) -> None:
    """Once all say that they are ready."""
    for each in running:
        assert each.stdout is not None
        each.stdout.readline()
    fresh = go.with_suffix(".new")
    fresh.write_text(str(time.monotonic() + 0.5))
    fresh.replace(go)


SLICES = 5
"""Of a round: now and then a host is half as fast for a moment, and a median leaves that out."""


@dataclass
class Crowd:
    """Tenants that stay, and what each of them had: iterations a second."""

    node: Node
    name: str
    works: tuple[str, ...]
    programs: list[Live]
    solo: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    free: list[list[float]] = field(default_factory=list)
    """All at the same time without limits, a slice each."""
    capped: list[list[float]] = field(default_factory=list)

    @classmethod
    def start(cls, node: Node, name: str, works: tuple[str, ...]) -> "Crowd":
        """Without limits, each on cores of its own."""
        programs = []
        for seat, work in enumerate(works):
            node.grant(key(name, seat))
            programs.append(begin([work], node.seated(key(name, seat), seat)))
        for seat, program in enumerate(programs):
            program.answer()
            program.pin(cores(seat, 3))
        return cls(node, name, works, programs)

    def measure_alone(self) -> None:
        for program, work in zip(self.programs, self.works, strict=True):
            self.solo.append(alone(program, work, 0.3, warm=0.2, slices=7))
            program.ask("queued", work)
            self.busy.append(min(1.0, program.answer() * self.solo[-1]))

    def limit(self, caps: tuple[int, ...]) -> None:
        """The broker reads a changed policy once a second, and the library hears of it a second later at most."""
        for seat, cap in enumerate(caps):
            self.node.grant(key(self.name, seat), cores=cap)

    def measure(self, caps: tuple[int, ...], rounds: int, seconds: float) -> None:
        """Without limits, with, with, without, and so on, so that what drifts is in both."""
        everybody = list(zip(self.programs, self.works, strict=True))
        before = False
        for limited in (False, True, True, False) * rounds:
            self.limit(caps if limited else (0,) * len(caps))
            warm = HEARD_S if limited != before else 0.3
            (self.capped if limited else self.free).extend(together(everybody, seconds / SLICES, warm, SLICES))
            before = limited

    def told(self) -> dict[str, Any]:
        said = [program.end()[-600:] for program in self.programs]
        return {"solo": self.solo, "busy": self.busy, "free": self.free, "capped": self.capped, "said": said}


def key(name: str, seat: int) -> str:
    return f"{name.replace(' ', '-')}-{seat}"


def torch(node: Node) -> None:
    """PyTorch tenants: each what it is due, and together what they have without limits, in the same processes."""
    if without_torch(node.bench):
        return
    for name, works, caps in (each for each in GROUPS if re.search(node.bench.match, each[0])):
        crowd = Crowd.start(node, name, works)
        try:
            crowd.measure_alone()
            crowd.measure(caps, 1 if node.bench.quick else 2, min(2.5, node.bench.seconds))
        finally:
            told = crowd.told()
        judge(node, crowd, caps, told)


def judge(node: Node, crowd: Crowd, caps: tuple[int, ...], told: dict[str, Any]) -> None:
    """Whose limit is below what it has beside the others anyway is held to it; the others lose nothing by theirs."""
    due = [min(1.0, cap / 100 / busy) for cap, busy in zip(caps, crowd.busy, strict=True)]
    free, capped = (
        [statistics.median(each) for each in zip(*some, strict=True)] for some in (crowd.free, crowd.capped)
    )
    parts = [[rate / solo for rate, solo in zip(some, crowd.solo, strict=True)] for some in (free, capped)]
    ok = all(
        abs(part / ideal - 1) <= 0.04 if ideal <= before else 0.96 * before <= part <= 1.04 * ideal
        for before, part, ideal in zip(*parts, due, strict=True)
    )
    words = [
        f"{part * 100:.0f} (due {ideal * 100:.0f}, free {before * 100:.0f})"
        for before, part, ideal in zip(*parts, due, strict=True)
    ]
    name = f"{crowd.name}, {'/'.join(map(str, caps))}"
    target = "due +- 4 %, or as free"
    node.bench.add("torch", name, " ".join(words), target, ok, **told)
    sums = [
        [sum(rate / solo for rate, solo in zip(each, crowd.solo, strict=True)) for each in some]
        for some in (crowd.free, crowd.capped)
    ]
    total = statistics.median(sums[1]) / statistics.median(sums[0]) * 100
    measured = f"{total:.1f} % of that without limits ({spread_of(sums[1])} of {spread_of(sums[0])})"
    node.bench.add("torch", f"{crowd.name}: together", measured, ">= 98 %", total >= 98)


def spread_of(values: list[float]) -> str:
    return f"{min(values) * 100:.0f} to {max(values) * 100:.0f}"


def serve(node: Node) -> None:
    """PyTorch: requests of high priority beside training of low priority."""
    if without_torch(node.bench):
        return
    node.grant("server", priority=0)
    node.grant("trainer", priority=1)
    told: list[dict[str, Any]] = []
    for beside in (False, True):
        go = node.root / f"go-serve-{beside}"
        script, seconds = HERE / "torch_work.py", node.bench.seconds
        running = [node.begin("server", sys.executable, script, "serve", seconds, go)]
        if beside:
            running.append(node.begin("trainer", sys.executable, script, "beside", "train", seconds, go, seat=1))
        release(running, go)
        answers = [finish(each) for each in running]
        told.append(answers[0])
    ratio = told[1]["p99_ms"] / told[0]["p99_ms"]
    measured = f"p99 {told[1]['p99_ms']:.2f} ms, alone {told[0]['p99_ms']:.2f}"
    node.bench.add("serve", "PyTorch layer beside training", measured, "<= 1.3 x alone", ratio <= 1.3, told=told)
