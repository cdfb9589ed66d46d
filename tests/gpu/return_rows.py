"""Section `returning` of `broker.py`: who rested beside a busy neighbour that may use idle time, and comes back."""

import statistics
import time
from collections.abc import Sequence

from bench import finish, unlimited
from grants import Node

NS = 100_000
CAP = 50
TIMES, CONTROL_TIMES, WORK_MS, REST_MS = 24, 8, 240, 260
WINDOW_S = 0.01
FROM, TO = 2, 14
"""Windows: from 20 ms after its first launch on, three times two turns."""
WORST, MIDDLE = 45.0, 48.5
"""Percent of the card, for 50: of any return, and of the one in the middle."""


def returning(node: Node) -> None:
    """Its share from 20 ms on, of many returns. The control is one that is capped at less than it is judged by."""
    solo = unlimited(node.bench, "spin", NS)
    for name, cap, times in (
        ("who comes back, from 20 to 140 ms on", CAP, TIMES),
        ("control: the same, capped at 20", 20, CONTROL_TIMES),
    ):
        node.grant(f"free-{cap}", cores=CAP, core_policy="default")
        node.grant(f"guest-{cap}", cores=cap)
        busy = node.start(f"free-{cap}", "run", "spin", times * (WORK_MS + 1.3 * REST_MS) / 1000 + 6, NS)
        time.sleep(2)
        got = node.run(f"guest-{cap}", "returns", NS, times, WORK_MS, REST_MS)
        busy.kill()
        finish(busy)
        had = shares(got["returns"], solo)
        middle, worst = statistics.median(had), min(had)
        ok = worst >= WORST and middle >= MIDDLE
        target = f">= {MIDDLE} in the middle, >= {WORST:.0f} of {len(had)}"
        measured = f"{middle:.1f} in the middle, {worst:.1f} at worst"
        node.bench.add(
            "returning",
            name,
            measured,
            target if cap == CAP else "neither",
            ok if cap == CAP else worst < WORST and middle < MIDDLE,
            had=[round(each, 1) for each in had],
            windows=got["returns"],
        )


def shares(returns: Sequence[Sequence[int]], solo: float) -> list[float]:
    """Percent of what it has alone; the first return is left out, its prices are not known."""
    return [sum(windows[FROM:TO]) / (TO - FROM) / WINDOW_S / solo * 100 for windows in returns[1:]]
