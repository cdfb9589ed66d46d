"""How a benchmark shows its figures: a table for people, one JSON object for programs.

Under each table stands how fast the machine was: milliseconds are worth nothing without it.
"""

import json
import os
import time
from collections.abc import Sequence

from msgspec import Struct
from rich.console import Console
from rich.table import Table

console = Console(stderr=True)
"""Progress and notes go to stderr, so that `--json` leaves stdout to the figures."""


class Figure(Struct, frozen=True):
    """One measured value. `target` is what is promised; None where nothing is."""

    key: str
    value: float
    unit: str
    words: str
    target: float | None = None
    at_least: bool = False
    """Whether the target is a floor, not a ceiling."""

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.value >= self.target if self.at_least else self.value <= self.target


def show(title: str, figures: Sequence[Figure], notes: Sequence[str] = (), *, as_json: bool) -> None:
    """Print the figures, as a table or as JSON."""
    if as_json:
        print(json.dumps({figure.key: round(figure.value, 3) for figure in figures}))
        return
    table = Table(title=title)
    for head in ("figure", "measured", "target", ""):
        table.add_column(head, justify="left" if head in ("figure", "") else "right")
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        target = "" if figure.target is None else f"{sign} {figure.target:g} {figure.unit}"
        mark = "" if figure.target is None else "[green]met[/]" if figure.met else "[red]missed[/]"
        table.add_row(figure.words, f"{figure.value:,.2f} {figure.unit}", target, mark)
    shown = Console()
    shown.print(table)
    for note in (*notes, machine()):
        shown.print(note, highlight=False)


LOOPS = 1_000_000


def machine() -> str:
    """Cores, and the best and the median of a plain Python loop: apart, where others share the cores."""
    times = sorted(_loop() for _ in range(9))
    return (
        f"machine: {os.cpu_count()} cores; {LOOPS:,} additions in Python take {times[0] * 1000:.0f} ms at best, "
        f"{times[len(times) // 2] * 1000:.0f} ms in the middle"
    )


def loop_ms() -> float:
    """Milliseconds of that loop, in the middle of five: for programs that print nothing but figures."""
    return round(1000 * sorted(_loop() for _ in range(5))[2], 1)


def _loop() -> float:
    began, total = time.perf_counter(), 0
    for number in range(LOOPS):
        total += number
    return time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(len(ordered) * share + 0.999999) - 1))]
