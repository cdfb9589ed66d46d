"""`hami limits`: whether slices are held to their limits here, and what they use now."""

import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hami.model.errors import Unavailable

if TYPE_CHECKING:
    from hami.cli.limits.check import Here, Limits, Row, Step
    from hami.cli.limits.program import Program
    from hami.cli.limits.top import Slice

SHORTEST_S = 0.5
ALL = "all"
UUIDS = ("GPU-", "MIG-")
"""How those of cards begin."""


class Seconds(click.FloatRange):
    """A span that can be waited for: a comparison alone lets "nan" pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no number.", param, ctx)
        return seconds


class Card(click.ParamType):  # type: ignore[type-arg]
    """A card's number, its UUID or the beginning of that, or all of them."""

    name = "card"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == ALL or isinstance(value, int) or str(value).upper().startswith(UUIDS):
            return value  # type: ignore[no-any-return]
        if not str(value).isdecimal() or len(str(value)) > 4:
            self.fail(f"{value!r} is neither a number of a card, from 0, nor a UUID (GPU-...) nor {ALL}.", param, ctx)
        return int(value)


@click.group()
def command() -> None:
    """Limits of slices: `check` measures whether they hold here, `top` shows what is used."""


@command.command("check", short_help="Measure whether limits hold on the card here.")
@click.option(
    "--memory",
    "mem_mib",
    type=click.IntRange(1),
    metavar="MIB",
    help="The limit that should hold; default: as the policy says.",
)
@click.option("--cores", "core_percent", type=click.IntRange(0, 100), metavar="PERCENT", help="Likewise.")
@click.option(
    "--seconds",
    type=Seconds(SHORTEST_S, 60),
    default=3.0,
    show_default=True,
    help="Measured for, each row of time.",
)
@click.option(
    "--card",
    type=Card(),
    metavar="NUMBER|UUID|all",
    help="A number as CUDA counts cards, from 0, or a UUID, of which the beginning will do. Default: all of a slice's, "
    "on a host the first.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def check(mem_mib: int | None, core_percent: int | None, seconds: float, card: int | str | None, output: str) -> None:
    """Measure whether limits hold on the card here, in under two minutes a card.

    In a container with a slice: its own limits of each of its cards, by programs that are started as any program there
    is. On a host with cards: limits set by hand, each against the same program without one, with controls that must
    fail. Needs no compiler, no CUDA toolkit and no PyTorch; uses the card fully while it runs.

    \b
    hami limits check
    hami limits check -o json | jq '.rows[] | select(.ok == false)'

    Exit status: 0 every limit holds, 1 one does not, 2 wrong use, 3 nothing to check: no card, no library, no limit.
    """
    from hami import native
    from hami.cli.limits import check as checks
    from hami.cli.limits import told
    from hami.cli.limits.program import Program

    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that closes, too: so that nothing is left behind
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    with _folder() as folder:
        program = Program(native.library(native.PROBE), Path("/none"), Path(folder))
        as_started = dict(os.environ)
        first = checks.here(program, as_started, card if isinstance(card, int) else 0)
        past = not first.held and told.policy_here() is not None
        if past:
            _note("This container has a slice, and the library that should hold it to that is not in force.")
        elif not first.held and (mem_mib is not None or core_percent is not None):
            raise click.UsageError("--memory and --cores are for where the library is in force, and it is not here")
        if isinstance(card, str) and card != ALL:
            card = _number_of(card, [checks.here(program, as_started, number) for number in range(first.cards)])
        numbers = _numbers(card, first)
        cards = [first if number == first.index else checks.here(program, as_started, number) for number in numbers]
        asked = Asked(mem_mib, core_percent, seconds, several=len(cards) > 1)
        rows: list[Row] = []
        unlimited: list[Unavailable] = []
        for one in cards:
            program.card, program.rounds_a_ns = one.index, None
            name = f"card {one.index}: " if asked.several else ""
            try:
                steps = checks.past_steps() if past else _steps(program, one, as_started, asked)
            except Unavailable as fault:
                unlimited.append(fault)
                steps = checks.unlimited_steps(str(fault))
            rows += [replace(row, name=name + row.name) for row in _run(list(steps), name)]
    if len(unlimited) == len(cards):
        raise unlimited[0]
    title = ", ".join(dict.fromkeys(one.card for one in cards))
    if output == "json":
        shown = [_as_json(row) for row in rows]
        click.echo(json.dumps({"card": title, "driver": first.driver, "rows": shown}, indent=2))
    else:
        _draw_check(f"{title}, driver {first.driver or 'unknown (no NVML here)'}", rows)
    sys.exit(1 if any(row.ok is False for row in rows) else 0)


def _as_json(row: "Row") -> dict[str, Any]:
    told = {"name": row.title, "limit": row.limit, "measured": row.measured, "ok": row.ok}
    return {**told, "why": row.why} if row.why else told


def _folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="hami-limits-")
    except OSError as fault:  # a container whose root is read-only
        raise Unavailable(f"no folder for ledgers: set TMPDIR to one that can be written ({fault.strerror})") from fault


def _number_of(uuid: str, there: "Sequence[Here]") -> int:
    """Of the one card that has it."""
    found = [one.index for one in there if one.uuid.upper().startswith(uuid.upper())]
    if len(found) != 1:
        uuids = ", ".join(one.uuid for one in there)
        raise click.UsageError(f"--card {uuid}: {len(found) or 'none'} of the cards here begin so: {uuids}")
    return found[0]


def _numbers(card: int | str | None, first: "Here") -> "Sequence[int]":
    """Which cards to measure. Of a slice all: each has a limit of its own."""
    if isinstance(card, int):
        if card >= first.cards:
            raise click.UsageError(f"--card {card}: CUDA counts {first.cards} here, from 0")
        return [card]
    if card == ALL or first.held:
        return range(first.cards)
    if first.cards > 1:
        _note(f"{first.cards} cards are here; this is card 0. --card NUMBER measures another, --card all each in turn.")
    return [0]


class Asked(NamedTuple):
    """On the command line; `several` cards are measured."""

    mem_mib: int | None
    core_percent: int | None
    seconds: float
    several: bool


def _steps(program: "Program", card: "Here", as_started: dict[str, str], asked: Asked) -> "Iterator[Step]":
    """What there is to check of a card; its kernels' length comes first. Raises Unavailable: nothing is limited."""
    from hami import native
    from hami.cli.limits import check as checks
    from hami.cli.limits import told

    where = f"on card {card.index}, {card.uuid}" if asked.several else "here"
    if card.held:
        env = as_started | program.fixed()
        limits = told.limits(card, as_started, asked.mem_mib, asked.core_percent)
        _note(f"The library is in force {where}: {_said(limits)}.")
        steps = partial(checks.held_steps, program, env, limits, asked.seconds)
    else:
        _note(f"The library is not in force {where}: it is tried with limits set by hand.")
        program.library = native.library(native.LIMITER)
        env = program.environment()
        steps = partial(checks.host_steps, program, asked.seconds)
    calibration = program.probe("run", "spin", SHORTEST_S, 100_000, env=env)
    program.rounds_a_ns = str(calibration.get("rounds_a_ns", 1))
    return steps()


def _said(limits: "Limits") -> str:
    parts = [f"{limits.mem_mib} MiB"] if limits.mem_mib is not None else []
    parts += [f"{limits.core_percent} % of the time"] if limits.core_percent is not None else []
    return " and ".join(parts)


def _note(text: str) -> None:
    click.echo(text, err=True)


def _run(steps: "list[Step]", of: str) -> "list[Row]":
    """With a progress bar where somebody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(steps))
        for step in steps:
            progress.update(task, description=of + step.name)
            rows.append(step.run())
            progress.advance(task)
    return rows


def _draw_check(title: str, rows: "list[Row]") -> None:
    from rich.table import Table
    from rich.text import Text

    from hami.cli.look import pictures

    table = Table("check", "limit", "measured", "", title=title, box=None, title_justify="left")
    for row in rows:
        verdict = {True: ("holds", "green"), False: ("does not hold", "red"), None: ("not judged", "dim")}[row.ok]
        said = Text.assemble(verdict, (f"  {row.why}" if row.why else "", "dim"))
        table.add_row(Text(row.name), _number(row.limit, row.unit), _number(row.measured, row.unit), said)
    console = pictures.console()
    console.print(table)
    failed = sum(row.ok is False for row in rows)
    open_ones = sum(row.ok is None for row in rows)
    console.print(_verdict(len(rows) - open_ones, failed) + (f" {open_ones} not judged." if open_ones else ""))


def _verdict(judged: int, failed: int) -> str:
    if not judged:
        return "Nothing could be judged."
    return f"{failed} of {judged} do not hold." if failed else f"All {judged} hold."


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g} {unit}"


@command.command("top", short_help="Show a node's live slices, what they use and may.")
@click.option(
    "--agent", "url", default="http://127.0.0.1:9394", show_default=True, help="Where an agent tells its metrics."
)
@click.option("-w", "--watch", type=Seconds(0.5, 86400), metavar="SECONDS", help="Again and again, until Ctrl-C.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def top(url: str, watch: float | None, output: str) -> None:
    """Show a node's live slices, what they use and may.

    Memory and time of each, against its limits. Asks the agent of this node. From elsewhere, reach it first, and name
    it:

    \b
    kubectl -n hami-system port-forward ds/hami-agent 9394
    hami limits top --agent http://127.0.0.1:9394

    A slice shows from its first CUDA call on. Time is what its launches were charged; where they are not (alone on its
    card under policy default, no limit of time), what NVML shows of its processes, and "?" where that cannot tell.

    Exit status: 0 done, 2 wrong use, 3 no agent answers there.
    """
    from hami.cli.limits import top as slices

    text = slices.asked(url)
    while True:
        found = slices.slices(text)
        if output == "json":
            click.echo(json.dumps({"slices": [slices.as_json(each) for each in found]}, indent=None if watch else 2))
        else:
            _draw_top(found, clear=watch is not None and sys.stdout.isatty())
        if watch is None:
            return
        text = _next(url, watch)


def _next(url: str, watch: float) -> str:
    """After a pause, and after more of them while the agent restarts: that is no reason to stop watching."""
    from hami.cli.limits import top as slices

    told = ""
    while True:
        time.sleep(watch)
        try:
            return slices.asked(url)
        except Unavailable as fault:
            if str(fault) != told:
                _note(f"{fault}. Asking again, until Ctrl-C.")
            told = str(fault)


CARD_LETTERS = 12
"""Of a card's uuid, in the table: `GPU-` and what tells the cards of a node apart."""


def _draw_top(found: "Iterable[Slice]", clear: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from hami.cli.look import pictures

    console = pictures.console()
    heads = ("pod", "container", "card", "MiB", "of", "time %", "of", "by", "waited s", "refused")
    table = Table(*heads, box=None, padding=(0, 1, 0, 0))
    for column in table.columns[2:]:
        column.no_wrap = True
    for column in table.columns[:2]:
        column.overflow = "fold"  # a narrow screen breaks names and cuts nothing off
    for each in found:
        table.add_row(
            Text(f"{each.namespace}/{each.pod}"), Text(each.container), Text(each.card[:CARD_LETTERS]),
            _share(each.used_mib, each.limit_mib), "all" if each.limit_mib is None else f"{each.limit_mib:.0f}",
            "?" if each.time_percent is None else _share(each.time_percent, each.limit_percent),
            f"{each.limit_percent:.0f}", each.time_by,
            f"{each.waited_s:.1f}", f"{each.refused:.0f}",
        )  # fmt: skip
    if clear:
        console.clear()
    console.print(table if table.row_count else "No slice here has used CUDA yet.")


def _share(used: float, limit: float | None) -> Any:
    from rich.text import Text

    full = limit is not None and limit > 0 and used > 0.95 * limit
    return Text(f"{used:.0f}", style="yellow" if full else "")
