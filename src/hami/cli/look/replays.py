"""What `hami simulate` shows: a bar while replays run, a table at the end. Decides nothing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hami.sim.traces.replay import Outcome
from hami.sim.traces.report import Row, rows

BESIDE_BAR = 56
"""Columns that the longest words and times beside the bar take."""
WIDEST = 78
"""Columns of the table where jobs wait, its longest policy's name in it; where there are fewer it is parted in two."""


def reading(files: str) -> AbstractContextManager[object]:
    """Words on standard error while files are read, which takes seconds for a million jobs; none where that is no
    terminal."""
    console = Console(stderr=True)
    return console.status(f"reading {escape(files)}") if console.is_terminal else nullcontext()


class Bar:
    """One bar on standard error over all replays; nothing where that is no terminal."""

    def __init__(self, runs: int) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=max(4, min(24, console.width - BESIDE_BAR))),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=float(runs))
        self._runs, self._begun = runs, 0

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, policy: str, seed: int) -> Callable[[int, int], None]:
        """The next replay begins; what is returned is to be told how far it is."""
        before = self._begun
        self._begun += 1
        self._bar.update(
            self._task, completed=float(before), description=f"{self._begun}/{self._runs} {policy}, seed {seed}"
        )

        def done(number: int, total: int) -> None:
            if number % 50 == 0 or number == total:
                self._bar.update(self._task, completed=before + number / max(total, 1))

        return done


def shown(outcomes: Sequence[Outcome], width: int = WIDEST) -> Group:
    """The table, in so many columns; under it how much each policy gains over the last one, and why pods failed."""
    found, first = rows(outcomes), dict[str, Outcome]()
    for outcome in outcomes:
        first.setdefault(outcome.policy, outcome)
    gains = (_gain(row, found[-1]) for row in found[:-1])
    seeds = Text(f"means of {found[0].seeds} seeds", style="dim")
    return Group(
        *([seeds] if found[0].seeds > 1 else []), *_tables(found, width), *gains, *map(_failures, first.values())
    )


def _tables(found: Sequence[Row], width: int) -> list[Table]:
    """Means over the seeds, and how much allocation scatters over them; no number is ever cut."""
    cards = {"GPU %\nallocated": [f"{row.allocation:.2f}" for row in found]}
    if any(row.seeds > 1 for row in found):  # of one seed nothing scatters, which says nothing of others
        cards["\n±"] = [f"{row.spread:.2f}" for row in found]
    cards["GPU %\nfragmented"] = [f"{row.fragmented:.2f}" for row in found]
    jobs = {"\nplaced": [f"{row.placed:.0f}" for row in found], "\nfailed": [f"{row.failed:.0f}" for row in found]}
    jobs["\nCPU s"] = [f"{row.seconds:.1f}" for row in found]
    if any(row.wait is not None for row in found):
        jobs["wait s\nmean"] = [f"{row.wait or 0:.1f}" for row in found]
        jobs["\np95"] = [f"{row.wait_p95 or 0:.1f}" for row in found]
    names = [row.policy for row in found]
    return [_table(names, cards | jobs)] if width >= WIDEST else [_table(names, cards), _table(names, jobs)]


def _table(names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\npolicy", no_wrap=True)
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for cells in zip(names, *columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _gain(row: Row, last: Row) -> Text:
    if row.against is None:
        return Text(f"{row.policy} and {last.policy}: no seed in common")
    errors = "" if row.sigmas is None else f" ({abs(row.sigmas):.1f} standard errors, paired by seed)"
    waits = "" if row.wait is None or last.wait is None else f", {row.wait - last.wait:+.1f} s waited"
    return Text(f"{row.policy} against {last.policy}: {row.against:+.2f} points allocated{errors}{waits}")


def _failures(outcome: Outcome) -> Text:
    reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.failures.items())
    said = f"failed for {reasons}" if reasons else "nothing failed"
    return Text(f"{outcome.policy}, seed {outcome.seed}: {said}", style="dim")
