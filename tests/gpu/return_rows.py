"""Section `returning` of `broker.py`: who comes to a card beside a busy neighbour that may use idle time, new or again.

What counts is what was through, and not what was launched: who comes launches ahead of the card first.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench import finish, unlimited
from grants import Node

NS = 100_000
CAP = 50
TIMES, CONTROL_TIMES, NEW, PLAIN, WORK_MS, REST_MS = 24, 8, 7, 3, 240, 260
WINDOW_S = 0.01
WINDOWS = 14
"""From its first launch on: three times two turns and half of one, as who has a whole turn at once has none next."""
WORST, MIDDLE = 45.0, 48.5
"""Percent of the card, for 50: of any return, and of the one in the middle."""
NEW_MIDDLE = 45.0
"""Of processes that have just begun, whose prices nobody knows."""


def returning(node: Node) -> None:
    """Its share from its first moment on, of many returns. The control is capped at less than it is judged by."""
    target = f">= {MIDDLE} in the middle, >= {WORST:.0f} of all"
    again(node, "who comes back, in its first 140 ms", CAP, TIMES, target)
    again(node, "control: the same, capped at 20", 20, CONTROL_TIMES, "neither")
    new(node)


@contextmanager
def busy_one(node: Node, key: str, seconds: float) -> Iterator[None]:
    """It has all of the card while nobody else wants any, and half of it else."""
    node.grant(key, cores=CAP, core_policy="default")
    busy = node.start(key, "run", "spin", seconds, NS)
    time.sleep(2)
    try:
        yield
    finally:
        busy.kill()
        finish(busy)


def again(node: Node, name: str, cap: int, times: int, target: str) -> None:
    node.grant(f"guest-{cap}", cores=cap)
    with busy_one(node, f"free-{cap}", times * (WORK_MS + 1.3 * REST_MS) / 1000 + 6):
        got = node.run(f"guest-{cap}", "returns", NS, times, WORK_MS, REST_MS)["returns"]
    had = [share(node, windows) for windows in got[1:]]  # of the first its prices are not known
    middle, worst = statistics.median(had), min(had)
    ok = worst >= WORST and middle >= MIDDLE
    measured = f"{middle:.1f} in the middle, {worst:.1f} at worst of {len(had)}"
    found = ok if cap == CAP else worst < WORST and middle < MIDDLE
    node.bench.add("returning", name, measured, target, found, had=had, windows=got)


def new(node: Node) -> None:
    """Processes that begin, one after the other; under the default policy, as an agent grants it."""
    node.grant("new", cores=CAP, core_policy="default")
    words, plain = ("returns", NS, 1, WORK_MS, 1), node.bench.environment()
    with busy_one(node, "free-new", 38):
        got = [node.run("new", *words)["returns"][0] for _ in range(NEW)]
        free = [node.bench.probe(*words, env=plain)["returns"][0] for _ in range(PLAIN)]
    had = [share(node, windows) for windows in got]
    measured = f"{statistics.median(had):.1f} in the middle, {min(had):.1f} to {max(had):.1f} of {NEW}"
    name, ok = "a new process, in its first 140 ms", statistics.median(had) >= NEW_MIDDLE
    node.bench.add("returning", name, measured, f">= {NEW_MIDDLE:.0f} in the middle", ok, had=had, windows=got)
    alike = " ".join(f"{share(node, windows):.1f}" for windows in free)
    node.bench.add("returning", "for comparison, one without the library", alike, "", None, windows=free)


def share(node: Node, windows: Sequence[int]) -> float:
    """Percent of what it has alone."""
    solo = unlimited(node.bench, "spin", NS)
    return round(sum(windows[:WINDOWS]) / WINDOWS / WINDOW_S / solo * 100, 1)
