"""`hami limits`: whether slices are held to their limits here, and what they use now."""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hami.cli.limits.check import Here, Limits, Row, Step
    from hami.cli.limits.top import Slice

SHORTEST_S = 0.5


@click.group()
def command() -> None:
    """Limits of slices: `check` measures whether they hold here, `top` shows what is used."""


@command.command("check")
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
    type=click.FloatRange(SHORTEST_S, 60),
    default=3.0,
    show_default=True,
    help="Measured for, each row of time.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def check(mem_mib: int | None, core_percent: int | None, seconds: float, output: str) -> None:
    """Measure whether limits hold on the card here, in under two minutes.

    In a container with a slice: its own limits, by programs that are started as any program there is. On a host with a
    card: limits set by hand, each against the same program without one, with controls that must fail. Needs no
    compiler, no CUDA toolkit and no PyTorch; uses the card fully while it runs.

    \b
    hami limits check
    hami limits check -o json | jq '.rows[] | select(.ok == false)'

    Exit status: 0 every limit holds, 1 one does not, 2 wrong use, 3 nothing to check: no card, no library, no limit.
    """
    from hami import native
    from hami.cli.limits import check as checks
    from hami.cli.limits.program import Program

    with tempfile.TemporaryDirectory(prefix="hami-limits-") as folder:
        program = Program(native.library(native.PROBE), Path("/none"), Path(folder))
        as_started = dict(os.environ)
        found = checks.here(program, as_started)
        if found.held:
            limits = _limits(found, mem_mib, core_percent)
            _note(f"The library is in force here: {_said(limits)}.")
            calibration = program.probe("run", "spin", SHORTEST_S, 100_000, env=as_started)
            program.rounds_a_ns = str(calibration.get("rounds_a_ns", 1))
            steps = checks.held_steps(program, as_started, limits, seconds)
        else:
            if mem_mib is not None or core_percent is not None:
                raise click.UsageError("--memory and --cores are for where the library is in force, and it is not here")
            _note("The library is not in force here: it is tried with limits set by hand.")
            program.library = native.library(native.LIMITER)
            calibration = program.probe("run", "spin", SHORTEST_S, 100_000, env=program.environment())
            program.rounds_a_ns = str(calibration.get("rounds_a_ns", 1))
            steps = checks.host_steps(program, seconds)
        rows = _run(list(steps))
    if output == "json":
        told = [
            {"name": row.name, "limit": row.limit, "measured": row.measured, "ok": row.ok, "unit": row.unit}
            for row in rows
        ]
        click.echo(json.dumps({"card": found.card, "driver": found.driver, "rows": told}, indent=2))
    else:
        _draw_check(found, rows)
    sys.exit(1 if any(row.ok is False for row in rows) else 0)


def _limits(found: "Here", mem_mib: int | None, core_percent: int | None) -> "Limits":
    """As asked for, else as the policy file says, else as the variables of hand use do. Raises Unavailable: none."""
    from hami.cli.limits.check import Limits
    from hami.model.errors import Malformed, Unavailable
    from hami.wire.policy import POLICY_PATH, CorePolicy, decode

    core_policy = os.environ.get("GPU_CORE_UTILIZATION_POLICY", "default").lower()
    cores = core_percent if core_percent is not None else int(os.environ.get("CUDA_DEVICE_SM_LIMIT") or 0)
    memory: int | None = found.total_mib if mem_mib is None and _by_hand_memory() else mem_mib
    try:
        policy = decode(Path(POLICY_PATH).read_text())
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, Malformed) as fault:
        raise Unavailable(f"{POLICY_PATH} cannot be read: {fault}") from fault
    else:
        core_policy = policy.core_policy.value
        card = next((each for each in policy.cards if each.uuid == found.uuid), None)
        if card is not None:
            memory = mem_mib if mem_mib is not None else card.mem_mib
            cores = core_percent if core_percent is not None else card.core_percent
    percent = None if cores in (0, 100) else cores
    if memory is None and percent is None:
        raise Unavailable(
            "no limit to check: the library is loaded here, and its policy limits neither memory nor time"
        )
    return Limits(memory, percent, core_percent is None and core_policy == CorePolicy.DEFAULT.value)


def _by_hand_memory() -> bool:
    return any(name.startswith("CUDA_DEVICE_MEMORY_LIMIT") for name in os.environ)


def _said(limits: "Limits") -> str:
    parts = [f"{limits.mem_mib} MiB"] if limits.mem_mib is not None else []
    parts += [f"{limits.core_percent} % of the time"] if limits.core_percent is not None else []
    return " and ".join(parts)


def _note(text: str) -> None:
    click.echo(text, err=True)


def _run(steps: "list[Step]") -> "list[Row]":
    """With a progress bar where somebody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=len(steps))
        for step in steps:
            progress.update(task, description=step.name)
            rows.append(step.run())
            progress.advance(task)
    return rows


def _draw_check(found: "Here", rows: "list[Row]") -> None:
    from rich.table import Table

    from hami.cli.look import pictures

    table = Table(
        "check", "limit", "measured", "", title=f"{found.card}, driver {found.driver}", box=None, title_justify="left"
    )
    for row in rows:
        verdict = {True: "[green]holds[/]", False: "[red]does not hold[/]", None: "[dim]not judged[/]"}[row.ok]
        why = f"[dim]  {row.why}[/]" if row.why else ""
        table.add_row(row.name, _number(row.limit, row.unit), _number(row.measured, row.unit), verdict + why)
    console = pictures.console()
    console.print(table)
    failed = sum(row.ok is False for row in rows)
    console.print(f"{failed} of {len(rows)} do not hold." if failed else f"All {len(rows)} hold.")


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g} {unit}"


@command.command("top")
@click.option(
    "--agent", "url", default="http://127.0.0.1:9394", show_default=True, help="Where an agent tells its metrics."
)
@click.option("-w", "--watch", type=click.FloatRange(0.5), metavar="SECONDS", help="Again and again, until Ctrl-C.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
def top(url: str, watch: float | None, output: str) -> None:
    """Show the live slices of one node: memory and time used, against their limits.

    Asks the agent of this node. From elsewhere, reach it first, and name it:

    \b
    kubectl -n hami-system port-forward ds/hami-agent 9394
    hami limits top --agent http://127.0.0.1:9394

    A slice shows from its first CUDA call on. Time is what its launches were charged; where they are not (alone on its
    card under policy default, no limit of time), what NVML shows of its processes, and "?" where that cannot tell.

    Exit status: 0 done, 2 wrong use, 3 no agent answers there.
    """
    import time

    from hami.cli.limits import top as slices

    while True:
        found = slices.slices(slices.asked(url))
        if output == "json":
            click.echo(json.dumps({"slices": [slices.as_json(each) for each in found]}, indent=None if watch else 2))
        else:
            _draw_top(found, clear=watch is not None and sys.stdout.isatty())
        if watch is None:
            return
        time.sleep(watch)


def _draw_top(found: "Iterable[Slice]", clear: bool) -> None:
    from rich.table import Table

    from hami.cli.look import pictures

    console = pictures.console()
    table = Table("pod", "container", "card", "memory MiB", "of", "time %", "by", "of", "waited s", "refused", box=None)
    count = 0
    for each in found:
        count += 1
        table.add_row(
            f"{each.namespace}/{each.pod}", each.container, each.card,
            _share(each.used_mib, each.limit_mib), "all" if each.limit_mib is None else f"{each.limit_mib:.0f}",
            "?" if each.time_percent is None else _share(each.time_percent, each.limit_percent),
            each.time_by, f"{each.limit_percent:.0f}",
            f"{each.waited_s:.1f}", f"{each.refused:.0f}",
        )  # fmt: skip
    if clear:
        console.clear()
    console.print(table if count else "No slice here has used CUDA yet.")


def _share(used: float, limit: float | None) -> Any:
    from rich.text import Text

    full = limit is not None and limit > 0 and used > 0.95 * limit
    return Text(f"{used:.0f}", style="yellow" if full else "")
