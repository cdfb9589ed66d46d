"""Draws a build as progress bars: what is being built, how far, and how long it took last time."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from hami.lab import build
from hami.lab.binaries import Binaries, find
from hami.lab.versions import Module, module_folder, source_folder, version

# A bar that waits just short of its end tells more than one that is full and goes on.
ALMOST = 0.98


def build_with_bars(modules: Iterable[Module], console: Console | None = None) -> Binaries:
    """`build.ensure` with a bar for each module that is missing; silent when none is."""
    wanted = tuple(modules)
    missing = find(wanted).missing(wanted)
    if not missing:
        return find(wanted)
    console = console or Console(stderr=True)
    source = source_folder()
    titles = {module.name: f"{module.name} {version(module, module_folder(module, source))}" for module in missing}
    if not console.is_terminal:
        return build.ensure(wanted, _lines(console, titles), console.print)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as bars:
        tasks = {name: bars.add_task(title, start=False, total=1.0, note="") for name, title in titles.items()}
        return build.ensure(wanted, _bars(bars, tasks), console.print)


def _bars(bars: Progress, tasks: dict[str, TaskID]) -> build.Report:
    started: set[str] = set()

    def report(moment: build.Progress) -> None:
        task = tasks[moment.step]
        if moment.step not in started:
            started.add(moment.step)
            bars.start_task(task)
        part = moment.elapsed_seconds / moment.expected_seconds if moment.expected_seconds else ALMOST
        bars.update(task, completed=1.0 if moment.finished else min(part, ALMOST), note=_note(moment))
        if moment.finished:
            bars.stop_task(task)

    return report


def _lines(console: Console, titles: dict[str, str]) -> build.Report:
    """Where no terminal is (a CI log): one line when a step begins and one when it ends."""
    started: set[str] = set()

    def report(moment: build.Progress) -> None:
        if moment.step not in started:
            started.add(moment.step)
            place = f"[{moment.number}/{moment.of}]"
            console.print(f"{place} building {titles[moment.step]} ({_note(moment)})", markup=False)
        if moment.finished:
            console.print(f"      took {moment.elapsed_seconds:.0f} s", markup=False)

    return report


def _note(moment: build.Progress) -> str:
    return f"{'last time' if moment.measured else 'takes about'} {moment.expected_seconds:.0f} s"
