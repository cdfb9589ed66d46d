"""`hami simulate`: replay a trace through the engine, one policy beside the other."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hami.cli.numbers import Number

if TYPE_CHECKING:
    from hami.sim.traces.experiment import Setting
    from hami.sim.traces.replay import Outcome

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MOST_HOURS = 100_000
MOST_DIGITS = 40
BESIDE = (
    ("--inflate", "--load"),
    ("--inflate", "--departures"),
    ("--departures", "--load"),
    ("--compress", "--load"),
    ("--seed", "--seeds"),
)
"""Options that count for nothing beside another."""
WITHOUT = {
    "--hours": ("--load",),
    "--longest": ("--load",),
    "--compress": ("--departures",),
    "--patience": ("--load", "--departures"),
}
"""Options that count for nothing without another."""


def list_policies(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked:
        from hami.sim.traces.placers import POLICIES

        click.echo("\n".join(POLICIES))
        context.exit()


def refuse_what_would_not_count(context: click.Context) -> None:
    """Who gives an option expects it to change something."""
    from click.core import ParameterSource

    given = {
        option.opts[-1]
        for option in context.command.params
        if option.name and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    }
    for one, other in BESIDE:
        if {one, other} <= given:
            raise click.UsageError(f"{one} counts for nothing beside {other}")
    for one, others in WITHOUT.items():
        if one in given and not given & set(others):
            raise click.UsageError(f"{one} counts for nothing without {' or '.join(others)}")
    if "--curve" in given and context.params["output"] != "json":
        raise click.UsageError("--curve counts for nothing without -o json; --chart draws it")


def svg_file(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """A place that can be written later: replays take minutes."""
    if path is not None and path.suffix != ".svg":
        raise click.BadParameter(f"{str(path)!r}: charts are SVG, a name that ends in .svg, please")
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{str(path)!r}: there is no folder {path.absolute().parent}")
    return path


@click.command()
@click.option("--nodes", type=FILE, required=True, help="Nodes: a CSV, .jsonl, or what hami record wrote.")
@click.option("--pods", type=FILE, required=True, help="Pods, in the same way; a record holds both.")
@click.option("--policy", "policies", multiple=True, default=("pack",), show_default=True,
              help="May be given several times; each is compared with the last one.")  # fmt: skip
@click.option("--list-policies", is_flag=True, is_eager=True, expose_value=False, callback=list_policies,
              help="Print the policies, one a line, and stop.")  # fmt: skip
@click.option("--inflate", type=Number(min=0.01, max=10), default=1.3, show_default=True,
              help="Let pods arrive until they have asked for this many times all GPUs; nobody leaves.")  # fmt: skip
@click.option("--departures", is_flag=True, help="Let pods arrive and leave at the times of the trace; they wait.")
@click.option("--compress", type=Number(min=1e-6, max=1e9), default=1.0, show_default=True,
              help="With --departures: arrivals this many times as dense, life times as they are.")  # fmt: skip
@click.option("--patience", type=Number(min=0), help="A pod that waits gives up after so many s.")
@click.option("--load", type=Number(min=0.01, max=3),
              help="Pods drawn from the trace arrive and leave: so much of all GPUs, e.g. 0.95.")  # fmt: skip
@click.option("--hours", type=Number(min=0, max=MOST_HOURS, min_open=True), default=2.0, show_default=True,
              help="With --load: how long is measured, after a warm-up of --longest.")  # fmt: skip
@click.option("--longest", type=Number(min=0, max=MOST_HOURS, min_open=True), default=3.0, show_default=True,
              help="With --load: life times are cut to so many hours.")  # fmt: skip
@click.option("--ties", type=click.Choice(["fixed", "random"]), default="fixed", show_default=True,
              help="Who is taken of equal nodes: by a fixed order, or drawn, as kube-scheduler does.")  # fmt: skip
@click.option(
    "--seed",
    "seeds",
    type=click.IntRange(min=0),
    multiple=True,
    default=(42,),
    show_default=True,
    help="May be repeated.",
)
@click.option("--seeds", "span", metavar="FROM-TO", help="All seeds of a range, e.g. 42-51.")
@click.option("--host-pods", type=click.Choice(["pack", "least-allocated"]), default="pack", show_default=True,
              help="Who places pods without GPU under pack: pack, or as kube-scheduler does by default.")  # fmt: skip
@click.option("--node-columns", metavar="FIELD=COLUMN,...", help="Columns of another CSV, e.g. name=id,cards=gpus.")
@click.option(
    "--pod-columns",
    metavar="FIELD=COLUMN,...",
    help="e.g. name=job,gpus=plan_gpu*0.01,arrives=submitted,lives=duration?.",
)
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), callback=svg_file,
              help="Write curves of the first seed there, as SVG.")  # fmt: skip
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
    """Replay a trace under several policies and compare them.

    Nothing is started and nothing is touched: nodes and pods come from files, time is virtual, and every placement
    goes through the scheduler's own engine, the same planning and ledger as in a cluster.

    \b
    hami simulate --nodes n.csv --pods p.csv --policy fgd --policy pack
    hami simulate --nodes n.csv --pods p.csv --load 0.95 --seeds 1-9
    hami simulate --nodes n.csv --pods p.csv --departures --chart curves.svg

    Where jobs leave (--departures, --load) allocation is the mean over time, and waiting times are shown.

    Exit status: 0 when every replay ran, 1 where something cannot be written, 2 for wrong use or an unusable file, 130
    after Ctrl-C or a kill (what was done so far is shown).
    """
    from hami.cli.look.replays import reading
    from hami.sim.traces import experiment, files
    from hami.sim.traces.steady import Load

    refuse_what_would_not_count(click.get_current_context())
    with interrupted_by_a_kill(), reading(f"{nodes.name} and {pods.name}"):
        machines, jobs = files.machines(nodes, node_columns), files.jobs(pods, pod_columns)
    setting = experiment.Setting(
        machines=machines,
        jobs=jobs,
        inflate=inflate,
        departures=departures or load is not None,
        load=None if load is None else Load(load, measured=3600 * hours, longest=3600 * longest),
        compress=compress,
        patience=float("inf") if patience is None else patience,
        host_jobs=host_pods,
        ties=ties,
    )
    runs = [(policy, seed) for policy in dict.fromkeys(policies) for seed in (range_of(span) if span else seeds)]
    outcomes, stopped = replayed(setting, list(dict.fromkeys(runs)))
    if output == "json":
        click.echo(encoded(outcomes, curves))
    elif outcomes:
        from hami.cli.look.pictures import console
        from hami.cli.look.replays import shown

        screen = console()
        screen.print(shown(outcomes, screen.width))
    if chart:
        draw(chart, outcomes, pods.name, over_time=setting.departures)
    if stopped:
        click.echo(f"{len(outcomes)} of {len(runs)} replays were done", err=True)
        raise click.Abort


def replayed(setting: "Setting", runs: list[tuple[str, int]]) -> "tuple[list[Outcome], bool]":
    """An outcome for each run, or those that there were before Ctrl-C or SIGTERM, which others than people send. Raises
    `Malformed` before any has begun."""
    from hami.cli.look.replays import Bar
    from hami.sim.traces import experiment

    for policy in {policy for policy, _ in runs}:
        experiment.check(setting, policy)
    outcomes: list[Outcome] = []
    with interrupted_by_a_kill(), Bar(len(runs)) as bar:
        try:
            for policy, seed in runs:
                outcomes.append(experiment.run(setting, policy, seed, bar.step(policy, seed)))
        except KeyboardInterrupt:
            return outcomes, True
    return outcomes, False


@contextmanager
def interrupted_by_a_kill() -> Iterator[None]:
    """SIGTERM is Ctrl-C meanwhile: what was done is shown, and a terminal gets its cursor back."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def range_of(text: str) -> range:
    """``42-51``, both included."""
    first, _, last = text.partition("-")
    if len(text) > 2 * MOST_DIGITS or not (
        first.isdecimal() and last.isdecimal() and int(first) <= int(last) < int(first) + 1000
    ):
        raise click.BadParameter(f"{text!r}: give the first and the last seed, as in 42-51", param_hint="--seeds")
    return range(int(first), int(last) + 1)


def encoded(outcomes: "list[Outcome]", curves: bool) -> bytes:
    """One object for one run, else ``{"runs": [...], "policies": [...]}``."""
    import msgspec

    from hami.sim.traces.report import Replays, rows

    found: dict[str, Any] = msgspec.to_builtins(Replays(tuple(outcomes), tuple(rows(outcomes))))
    for run in found["runs"]:
        if not curves:
            del run["curve"]
    body = found["runs"][0] if len(found["runs"]) == 1 else found
    return msgspec.json.format(msgspec.json.encode(body), indent=2)


def draw(path: Path, outcomes: "list[Outcome]", title: str, *, over_time: bool) -> None:
    from hami.config.files import write
    from hami.sim.traces.charts import LOAD, svg, time

    first: dict[str, Any] = {}
    for outcome in outcomes:
        first.setdefault(outcome.policy, outcome.curve)
    write(path, svg(first, title, time(first) if over_time else LOAD).encode())
