"""Section `paired` of `broker.py`: what the library costs PyTorch programs that it does not hold back."""

import random
import re
import statistics
from collections.abc import Sequence

from bench import Bench
from grants import Node
from torch_live import HEARD_S, Live, alone, begin, cores
from torch_rows import without_torch

Slices = list[float]
KINDS = {"no limit of time": 0, "limit 99": 99}
TARGETS = {"no limit of time": 0.3, "limit 99": 1.0}


def paired(node: Node) -> None:
    """Eight processes without the library and eight with it, whose limit is changed while they run; all on the same two
    cores, one running at a time, in slices of 80 ms in any order, what they work on made anew each time."""
    if without_torch(node.bench):
        return
    works = [work for work in ("train", "decode") if re.search(node.bench.match, work)]
    node.grant("paired")
    plain = [begin(works, node.bench.environment()) for _ in range(8)]
    ours = [begin(works, node.seated("paired", 0)) for _ in range(8)]
    for program in plain + ours:
        program.answer()
    for program in plain + ours:
        program.pin(cores(1, 2))
    had: dict[tuple[str, str], list[Slices]] = {}
    before = None
    for kind in (*KINDS, *reversed(KINDS)) * (1 if node.bench.quick else 2):
        node.grant("paired", cores=KINDS[kind])
        if kind != before:
            alone(ours[0], works[0], 0.1, warm=HEARD_S)
        before = kind
        for work in works:
            for told, slices in visit({"alone": plain, kind: ours}, work):
                had.setdefault((work, told), []).append(slices)
    for program in plain + ours:
        program.end()
    for work in works:
        judge(node.bench, work, {kind: had[work, kind] for kind in ("alone", *KINDS)})


def visit(kinds: dict[str, list[Live]], work: str) -> list[tuple[str, Slices]]:
    """Three slices of each program, under the name of its kind."""
    everybody = [(kind, program, Slices()) for kind, programs in kinds.items() for program in programs]
    for _, program, _ in everybody:
        program.ask("anew", work)
        program.answer()
    for _ in range(3):
        for _, program, slices in random.sample(everybody, len(everybody)):
            slices.append(alone(program, work, 0.08))
    return [(kind, slices) for kind, _, slices in everybody]


def judge(bench: Bench, work: str, had: dict[str, list[Slices]]) -> None:
    """A row holds when the whole interval is below its target, fails when the whole is above; else it says neither."""
    told = {kind: [[round(one, 2) for one in slices] for slices in some] for kind, some in had.items()}
    for kind, most in TARGETS.items():
        lost, low, high = interval(had["alone"], had[kind])
        measured = f"{lost:+.2f} % ({low:+.2f} to {high:+.2f})"
        ok = True if high <= most else False if low > most else None
        bench.add("paired", f"{work}, {kind}", measured, f"<= {most} % lost", ok, rates=told)
    scatter = statistics.pstdev(pooled(had["alone"])) / statistics.mean(pooled(had["alone"])) * 100
    bench.add("paired", f"{work}: without the library a slice scatters by", f"{scatter:.1f} %", "", None)


def pooled(some: Sequence[Slices]) -> Slices:
    return [one for slices in some for one in slices]


def interval(base: Sequence[Slices], other: Sequence[Slices]) -> tuple[float, float, float]:
    """By how many percent the median of `other` is below that of `base`, and the 95 % interval: drawn again 1000 times.

    What is drawn is a process's visit: where its memory lies, and what its host does meanwhile, is in all its slices.
    """
    dice = random.Random(1)

    def lost(a: Sequence[Slices], b: Sequence[Slices]) -> float:
        return (1 - statistics.median(pooled(b)) / statistics.median(pooled(a))) * 100

    drawn = sorted(lost(dice.choices(base, k=len(base)), dice.choices(other, k=len(other))) for _ in range(1000))
    return lost(base, other), drawn[25], drawn[974]
