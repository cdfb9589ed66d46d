"""Section `single` of `broker.py`: PyTorch programs by themselves, with limits and without, each in one process."""

import re
import statistics
from dataclasses import dataclass, field
from typing import Any

from bench import Bench
from grants import Node
from torch_live import HEARD_S, Live, alone, begin, cores
from torch_rows import without_torch

WORKS = ("layer", "train", "decode", "matmul")
LIMITS = (99, 80, 50, 20)


@dataclass
class Program:
    work: str
    live: Live
    rates: dict[int, list[float]] = field(default_factory=dict)
    """Iterations a second by limit; 0: without."""
    one_s: dict[int, float] = field(default_factory=dict)
    """What one call takes on the card by limit: a program that the card's power holds back is faster when it rests."""

    def measure(self, limit: int) -> None:
        self.rates.setdefault(limit, []).append(alone(self.live, self.work, 0.3, warm=0.6, slices=5))
        if self.work == "matmul":
            self.live.ask("one", self.work)
            self.one_s[limit] = self.live.answer()

    def queued(self) -> float:
        self.live.ask("queued", self.work)
        return self.live.answer()


def single(node: Node) -> None:
    """All are there, and one runs at a time; first without limits, and last again."""
    if without_torch(node.bench):
        return
    works = [work for work in WORKS if re.search(node.bench.match, work)]
    programs = []
    for seat, work in enumerate(works):
        node.grant(f"single-{work}")
        programs.append(Program(work, begin([work], node.seated(f"single-{work}", seat))))
    for program in programs:
        program.live.answer()
        program.live.pin(cores(0, 3))
    queued = {program.work: program.queued() for program in programs}
    for limit in (0, *LIMITS, 0):
        for program in programs:
            node.grant(f"single-{program.work}", cores=limit)
        for place, program in enumerate(programs):
            if place == 0:
                alone(program.live, program.work, 0.1, warm=HEARD_S)
            program.measure(limit)
    said = {program.work: program.live.end()[-400:] for program in programs}
    for program in programs:
        busy = min(1.0, queued[program.work] * statistics.median(program.rates[0]))
        for limit in LIMITS:
            judge(node.bench, program, limit, busy, said=said[program.work])


def judge(bench: Bench, program: Program, limit: int, busy: float, **detail: Any) -> None:
    ideal = min(100.0, limit / busy)
    rate, solo = (statistics.median(program.rates[each]) for each in (limit, 0))
    speed = rate / solo * 100
    measured, target, ok = f"{speed:.1f} (ideal {ideal:.1f})", "within 4 % of ideal", abs(speed / ideal - 1) <= 0.04
    if ideal == 100.0:
        target, ok = ">= 96 % of solo", speed >= 96
    elif program.work == "matmul":
        used = rate * program.one_s[limit] * 100
        measured = f"{used:.1f} of the time ({speed:.1f} of speed)"
        target, ok = f"{limit} +- 2 of the time", abs(used - limit) <= 2
    name = f"{program.work} at {limit} (alone {busy * 100:.0f} % busy)"
    bench.add("torch", name, measured, target, ok, rates=program.rates, one_s=program.one_s, **detail)
