"""`hami simulate`: replay a trace through the engine, one policy beside the other."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hami.sim.replay import Outcome

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def list_policies(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from hami.sim.placers import POLICIES

        click.echo("\n".join(POLICIES))
        context.exit()


@click.command()
@click.option("--nodes", type=FILE, required=True, help="Nodes: a CSV, .jsonl, or what hami record wrote.")
@click.option("--pods", type=FILE, required=True, help="Pods, in the same way; a record holds both.")
@click.option(
    "--policy", "policies", multiple=True, default=("pack",), show_default=True, help="May be given several times."
)
@click.option("--list-policies", is_flag=True, is_eager=True, expose_value=False, callback=list_policies,
              help="Print the policies, one a line, and stop.")  # fmt: skip
@click.option("--inflate", type=click.FloatRange(min=0.01, max=10), default=1.3, show_default=True,
              help="Let pods arrive until they have asked for this many times all GPUs; nobody leaves.")  # fmt: skip
@click.option("--departures", is_flag=True, help="Let pods arrive and leave at the times of the trace; they wait.")
@click.option("--compress", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
              help="With --departures: arrivals this many times as dense, life times as they are.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(min=0), help="A pod that waits gives up after so many s.")
@click.option("--load", type=click.FloatRange(min=0.01, max=3),
              help="Pods drawn from the trace arrive and leave: so much of all GPUs, e.g. 0.95.")  # fmt: skip
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=2.0, show_default=True,
              help="With --load: how long is measured, after a warm-up of --longest.")  # fmt: skip
@click.option("--longest", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
              help="With --load: life times are cut to so many hours.")  # fmt: skip
@click.option("--ties", type=click.Choice(["fixed", "random"]), default="fixed", show_default=True,
              help="Who is taken of equal nodes: by a fixed order, or drawn, as kube-scheduler does.")  # fmt: skip
@click.option("--seed", "seeds", type=int, multiple=True, default=(42,), show_default=True, help="May be repeated.")
@click.option("--seeds", "span", metavar="FROM-TO", help="All seeds of a range, e.g. 42-51.")
@click.option("--host-pods", type=click.Choice(["pack", "least-allocated"]), default="pack", show_default=True,
              help="Who places pods without GPU under pack: pack, or as kube-scheduler does by default.")  # fmt: skip
@click.option("--node-columns", metavar="FIELD=COLUMN,...", help="Columns of another CSV, e.g. name=id,cards=gpus.")
@click.option("--pod-columns", metavar="FIELD=COLUMN,...", help="e.g. name=job,cards=gpu_num,cpu_milli=cpu*1000.")
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), help="Write curves of the first seed as SVG.")
@click.option("--curve", "curves", is_flag=True, help="With -o json: the curve of each run too.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How results are printed.")
def command(
    *,
    nodes: Path,
    pods: Path,
    policies: tuple[str, ...],
    inflate: float,
    departures: bool,
    compress: float,
    patience: float | None,
    load: float | None,
    hours: float,
    longest: float,
    ties: str,
    seeds: tuple[int, ...],
    span: str | None,
    host_pods: str,
    node_columns: str | None,
    pod_columns: str | None,
    chart: Path | None,
    curves: bool,
    output: str,
) -> None:
    """Replay a trace through the scheduler's own engine and compare placement policies.

    Nothing is started and nothing is touched: nodes and pods come from files, time is virtual, and every placement
    goes through the same planning and ledger as in a cluster.

    \b
    hami simulate --nodes nodes.csv --pods pods.csv --policy fgd --policy pack --seeds 42-51
    hami simulate --nodes nodes.csv --pods pods.csv --policy fgd --policy pack --load 0.95 --patience 1800
    hami simulate --nodes nodes.csv --pods pods.csv --departures --compress 100 --chart curves.svg

    Exit status: 0 when every replay ran, 2 for wrong use or an unusable file.
    """
    from hami.sim import experiment, files
    from hami.sim.steady import Load

    setting = experiment.Setting(
        machines=files.machines(nodes, node_columns),
        jobs=files.jobs(pods, pod_columns),
        inflate=inflate,
        departures=departures or load is not None,
        load=None if load is None else Load(load, measured=3600 * hours, longest=3600 * longest),
        compress=compress,
        patience=float("inf") if patience is None else patience,
        host_jobs=host_pods,
        ties=ties,
    )
    runs = [(policy, seed) for policy in dict.fromkeys(policies) for seed in (range_of(span) if span else seeds)]
    with progress_bar(len(runs)) as step:
        outcomes = [experiment.run(setting, policy, seed, step(policy, seed)) for policy, seed in runs]
    if chart:
        draw(chart, outcomes, pods.name)
    if output == "json":
        click.echo(encoded(outcomes, curves))
    else:
        show(outcomes)


def range_of(text: str) -> range:
    """``42-51``, both included."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last) < int(first) + 1000):
        raise click.BadParameter(f"{text!r}: give the first and the last seed, as in 42-51", param_hint="--seeds")
    return range(int(first), int(last) + 1)


class progress_bar:  # noqa: N801 - reads as the function it is
    """A bar on standard error while replays run; nothing where that is no terminal."""

    def __init__(self, runs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._runs, self._begun = runs, 0

    def __enter__(self) -> Callable[[str, int], Callable[[int, int], None]]:
        self._bar.start()
        return self.step

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, policy: str, seed: int) -> Callable[[int, int], None]:
        self._begun += 1
        task = self._bar.add_task(f"{self._begun}/{self._runs} {policy}, seed {seed}", total=None)

        def done(number: int, total: int) -> None:
            if number % 50 == 0 or number == total:
                self._bar.update(task, completed=number, total=total)

        return done


def encoded(outcomes: "list[Outcome]", curves: bool) -> bytes:
    """One object for one run, else ``{"runs": [...], "policies": [...]}``."""
    import msgspec

    from hami.sim.report import rows

    runs: list[dict[str, Any]] = [msgspec.to_builtins(outcome) for outcome in outcomes]
    for run in runs:
        if not curves:
            del run["curve"]
    body = runs[0] if len(runs) == 1 else {"runs": runs, "policies": msgspec.to_builtins(rows(outcomes))}
    return msgspec.json.format(msgspec.json.encode(body), indent=2)


def draw(path: Path, outcomes: "list[Outcome]", title: str) -> None:
    from hami.sim.charts import svg

    first: dict[str, Any] = {}
    for outcome in outcomes:
        first.setdefault(outcome.policy, outcome.curve)
    path.write_text(svg(first, title))


def show(outcomes: "list[Outcome]") -> None:
    """The table, and under it why pods failed."""
    from rich.console import Console
    from rich.table import Table

    from hami.sim.report import rows

    table, found = Table(box=None, pad_edge=False), rows(outcomes)
    waits = any(row.wait is not None for row in found)
    compared = any(row.against is not None for row in found)
    table.add_column("policy", no_wrap=True)
    heads = ["seeds", "GPU allocated %", "±", "fragmented %", "placed", "failed", "CPU s"]
    for head in [*heads, *(["wait s", "p95 s"] if waits else []), *([f"- {found[-1].policy}"] if compared else [])]:
        table.add_column(head, justify="right", overflow="fold")
    for row in found:
        cells = [row.policy, str(row.seeds), f"{row.allocation:.2f}", f"{row.spread:.2f}", f"{row.fragmented:.2f}"]
        cells += [f"{row.placed:.0f}", f"{row.failed:.0f}", f"{row.seconds:.1f}"]
        cells += [f"{row.wait:.1f}", f"{row.wait_p95:.1f}"] if waits else []
        sigmas = "" if row.sigmas is None else f" ({row.sigmas:.1f} se)"
        cells += [f"{row.against:+.2f}{sigmas}" if row.against is not None else ""] if compared else []
        table.add_row(*cells)
    console = Console()
    console.print(table)
    for outcome in {outcome.policy: outcome for outcome in reversed(outcomes)}.values():
        reasons = ", ".join(f"{count} {reason}" for reason, count in outcome.failures.items())
        console.print(f"[dim]{outcome.policy}, seed {outcome.seed}: failed for {reasons or 'no reason'}[/]")
