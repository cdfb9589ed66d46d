"""Sections of `broker.py`: PyTorch programs as tenants of one card."""

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import HERE, Bench, finish
from grants import Node
from torch_live import Pool, Slice, between, mean, paced
from torch_rows import without_torch

GROUPS = (
    ("two layers", ("layer", "layer"), (30, 70)),
    ("two training steps", ("train", "train"), (30, 70)),
    ("four layers", ("layer", "layer", "layer", "layer"), (25, 25, 25, 25)),
    ("a light one beside a training step", ("small", "train"), (30, 70)),
    ("four layers, held by nothing", ("layer", "layer", "layer", "layer"), (99, 99, 99, 99)),
)
LOG_TURNS, LOG_ALL = 3, 4
"""What the library says on stderr: turns, once a second; each measurement of a launch."""
FILLS = {"train"}
"""Works that use whatever is left of a card; others are bound by their hosts, and by how the card itself switches."""
WARM_S, SLICE_S = 0.12, 0.3
"""A slice under a limit and one without, in turn: hosts and the card's own arbiter are as they are for seconds."""


@dataclass
class Crowd:
    """What each of several tenants had: slices alone, with the others without limits, and with."""

    name: str
    works: tuple[str, ...]
    caps: tuple[int, ...]
    busy: list[float]
    solo: list[float]
    free: list[list[Slice]]
    capped: list[list[Slice]]

    def parts(self, slices: Sequence[Sequence[Slice]]) -> list[float]:
        """Of what each has alone."""
        return [mean(own) / solo for own, solo in zip(slices, self.solo, strict=True)]

    def due(self) -> list[float]:
        """What the limits alone would let each have; above 1 where they let it have more than it had alone."""
        return [cap / 100 / busy for cap, busy in zip(self.caps, self.busy, strict=True)]

    def sums(self, slices: Sequence[Sequence[Slice]]) -> list[float]:
        """Of all together, slice by slice, in what one has alone."""
        rows = zip(*slices, strict=True)
        return [sum(one.rate / solo for one, solo in zip(row, self.solo, strict=True)) for row in rows]


def torch(pool: Pool, seconds: float) -> None:
    """PyTorch tenants: each what it is due, and together what they have without limits, in the same processes."""
    groups = [each for each in GROUPS if re.search(pool.node.bench.match, each[0])]
    for name, works, caps in groups:
        programs = list(zip(pool.programs, works, strict=False))
        solo, busy = [], []
        for program, work in programs:
            (slices,) = paced([(program, work)], WARM_S, SLICE_S / 2, [[0] * 4])
            solo.append(mean(slices))
            busy.append(min(1.0, program.told("queued", work)[0] * solo[-1]))
        rounds = max(2, round(seconds / len(groups) / (WARM_S + SLICE_S) / 4))
        for program, _ in programs:
            program.told("log", LOG_ALL)
        # Without, with, with, without, and so on: what drifts is in both.
        told = paced(programs, WARM_S, SLICE_S, [(0, cap, cap, 0) * rounds for cap in caps])
        for program, _ in programs:
            program.told("log", LOG_TURNS)
        free = [[one for at, one in enumerate(own) if at % 4 in (0, 3)] for own in told]
        capped = [[one for at, one in enumerate(own) if at % 4 in (1, 2)] for own in told]
        judge(pool.node.bench, Crowd(name, works, caps, busy, solo, free, capped))


def judge(bench: Bench, crowd: Crowd) -> None:
    """
    Whose limit is below what it has beside the others anyway is held to it; the others are not to lose by it, and where
    all can use whatever is left of the card, they have that: no limiter gives more than the card does without limits.
    """
    due, free, capped = crowd.due(), crowd.parts(crowd.free), crowd.parts(crowd.capped)
    held = [ideal <= before for ideal, before in zip(due, free, strict=True)]
    all_there = sum(free) if FILLS.issuperset(crowd.works) else sum(map(min, due, free))
    left = all_there - sum(part for part, is_held in zip(capped, held, strict=True) if is_held)
    others = sum(before for before, is_held in zip(free, held, strict=True) if not is_held)
    words, oks = [], []
    for at, (part, ideal, before) in enumerate(zip(capped, due, free, strict=True)):
        there = ideal if held[at] else min(ideal, left * before / others if FILLS.issuperset(crowd.works) else before)
        most = between([one.rate for one in crowd.capped[at]], [one.rate for one in crowd.free[at]])[2] * before
        oks.append(abs(part / ideal - 1) <= 0.04 if held[at] else most >= 0.96 * there and part <= 1.04 * ideal)
        note = f"due {min(1, ideal) * 100:.0f}" + ("" if there == ideal else f", {there * 100:.0f} there")
        words.append(f"{part * 100:.0f} ({note})")
    name = f"{crowd.name}, {'/'.join(map(str, crowd.caps))}"
    bench.add("torch", name, " ".join(words), "+- 4 % of due, or of what is there", all(oks), **told(crowd))
    total, low, high = (each * 100 for each in between(crowd.sums(crowd.capped), crowd.sums(crowd.free)))
    part = all_there / sum(free)
    measured = f"{total:.1f} % of that without limits ({low:.1f} to {high:.1f})"
    target = ">= 98 %" if part == 1 else f">= 98 % of the {part * 100:.1f} that limits leave"
    undecided = total < 98 * part <= high
    bench.add("torch", f"{crowd.name}: together", measured, target, None if undecided else total >= 98 * part)


def told(crowd: Crowd) -> dict[str, Any]:
    return {
        "solo": crowd.solo,
        "busy": crowd.busy,
        "free": [[round(one.rate, 1) for one in own] for own in crowd.free],
        "capped": [[round(one.rate, 1) for one in own] for own in crowd.capped],
        "paid_us": [statistics.mean(one.paid_ns for one in own) / 1e3 for own in crowd.capped],
    }


def release(running: list[subprocess.Popen[str]], go: Path) -> None:
    """Once all say that they are ready."""
    for each in running:
        assert each.stdout is not None
        each.stdout.readline()
    fresh = go.with_suffix(".new")
    fresh.write_text(str(time.monotonic() + 0.5))
    fresh.replace(go)


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
