"""`hami frag`: how many of each typical ask still fit, what blocks, the fewest moves that would free the largest."""

from typing import TYPE_CHECKING, Any

import click

from hami.cli.look.source import Source, options

if TYPE_CHECKING:
    from hami.cli.look.relief import Report


@click.command()
@click.option("--gpu", type=click.IntRange(1, 1024), help="Make room for this many cards a container ...")
@click.option("--gpumem", metavar="MIB", help="... with so many MiB each ...")
@click.option("--gpumem-percentage", type=click.IntRange(1, 100), help="... or so much of each card's memory ...")
@click.option("--gpucores", type=click.IntRange(0, 100), help="... and so many percent of each card's time.")
@click.option("--most-moves", type=click.IntRange(0, 6), default=4, show_default=True, help="0 looks for none.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@options()
def command(source: Source, most_moves: int, output: str, **wanted: Any) -> None:
    """How fragmented the cards are, in one number and in pods.

    Typical asks are learned from the pods that are there; a whole card, a half and a quarter are always among
    them. The number is the part of what is free that they cannot use, each weighing as often as it is asked.

    If the largest of them (or the one you name) fits nowhere, the fewest moves that would make room are worked out.
    No disruption budget is broken, and nothing is ever moved: that is yours to do.

    \b
    hami frag
    hami frag --gpu 4 --gpumem-percentage 100
    hami frag --snapshot cluster.json -o json

    Live, it lists nodes, pods and disruption budgets with your own rights; who may not list pods gets the scheduler's
    numbers, without moves.

    Exit status: 0 done, 2 wrong use, 3 something needed does not answer.
    """
    found = _report(
        source, {name.replace("_", "-"): value for name, value in wanted.items() if value is not None}, most_moves
    )
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    _draw(found, most_moves)


def _report(source: Source, limits: dict[str, Any], most: int) -> "Report":
    from hami.cli.look.relief import report
    from hami.ledger.filed import rebuilt
    from hami.plan.advice.typical import Typical
    from hami.vendors.trial import trial_ask, trial_pod

    if source.snapshot is not None:
        read, filed = source.filed()
    else:
        live = _live(source)
        if live is None:
            return _numbers(source)
        read, filed = live, rebuilt(live)
    wanted = None
    if limits:
        vendors = source.vendors()
        ask = trial_ask(trial_pod(limits, {}, "default", vendors), vendors, read.policies.policies())
        wanted = Typical("the ask named", ask, 0)
    return report(read, filed, wanted, most)


def _live(source: Source) -> Any:
    """A snapshot with the person's own rights; None for one who may not list nodes or pods."""
    from hami.cli.look import recording
    from hami.cli.look.source import run
    from hami.kube.errors import Forbidden
    from hami.model.ask import Policies

    async def work() -> Any:
        async with source.kube() as kube:
            return await recording.snapshot(kube, source.vendors(), Policies())

    try:
        return run(work())
    except Forbidden:
        return None


def _numbers(source: Source) -> "Report":
    from hami.cli.look.relief import Report
    from hami.cli.look.source import asked
    from hami.scheduler.api.answers import Fragmented

    found = asked(source, "GET", "/api/v1/frag", Fragmented)
    return Report(nodes=found.nodes, cards=found.cards, fragmentation=found.fragmentation, searched="not looked for")


def _draw(found: "Report", most: int) -> None:
    from rich.text import Text

    from hami.cli.look import pictures

    console = pictures.console()
    if not found.cards:
        console.print("No node has registered a card: nothing is there to be fragmented. Does `hami agent` run there?")
        return
    console.print(pictures.heading(found.fragmentation, found.after))
    if found.moves:
        console.print(pictures.moves(found.target or "", found.moves, found.target_node or ""))
    else:
        said = {
            "not needed": "Every typical ask that an empty node would take fits somewhere: no moves needed.",
            "none exist": f"No {most} moves or fewer make room for {found.target}: end something, or add a node.",
            "gave up": f"No moves that make room for {found.target} were found before the search was cut short.",
        }
        console.print(Text(said.get(found.searched, "Moves were not looked for."), style="dim"))
    console.print(pictures.fragmented(found.fragmentation, found.after))
    if found.picture:
        console.print(pictures.cards([(one.node, one.cards) for one in found.picture]))
