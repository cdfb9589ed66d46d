"""`hami explain pod NS/NAME`: why a pod waits, or why it is where it is, and what would help."""

import sys
from typing import TYPE_CHECKING

import click

from hami.cli.look.source import Source, options

if TYPE_CHECKING:
    from hami.scheduler.api.answers import Explained


class Explain(click.Group):
    """A group whose only kind of thing is a pod: who leaves the word out is told."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].startswith("pod/"):  # as kubectl writes it
            args = ["pod", args[0].removeprefix("pod/"), *args[1:]]
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"explain what? `hami explain pod {args[0]}` explains a pod")
        return super().resolve_command(ctx, args)


@click.group(cls=Explain)
def command() -> None:
    """Why a pod waits, or is where it is, and what would help.

    \b
    hami explain pod team/notebook

    Per node and card the reason with what was needed and had, HAMi's scores, and what would make it fit.
    """


@command.command("pod")
@click.argument("pod", metavar="[NAMESPACE/]NAME")
@click.option("-n", "--namespace", help="Of the pod, where its name has none; default: default.")
@click.option("--nodes", type=click.IntRange(1, 64), default=8, show_default=True, help="Nodes shown card by card.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@options()
def pod(source: Source, pod: str, namespace: str | None, nodes: int, output: str) -> None:
    """Explain one pod, with the scheduler's own code.

    \b
    hami explain pod team/notebook
    hami explain pod team/notebook -o json | jq .fixes[0].text
    hami explain pod team/notebook --snapshot cluster.json

    You see what you may see: the pod if you may get it, nodes and cards if you may `get nodes`.

    Exit status: 0 it fits (or is bound), 1 it does not, 2 wrong use, 3 something needed does not answer.
    """
    first, slash, second = pod.partition("/")
    name, space = (second, first) if slash else (first, namespace or "default")
    if not name or not space or "/" in name:
        raise click.UsageError(f"{pod!r} is no pod: NAMESPACE/NAME, or NAME with -n NAMESPACE")
    finish(_answer(source, space, name, nodes), output)


def _answer(source: Source, namespace: str, name: str, nodes: int) -> "Explained":
    from urllib.parse import urlencode

    from hami.cli.look.source import asked
    from hami.scheduler.api.answers import Explained

    if source.snapshot is not None:
        return _from_file(source, namespace, name, nodes)
    query = urlencode({"namespace": namespace, "name": name, "nodes": nodes})
    return asked(source, "GET", f"/api/v1/explain?{query}", Explained)


def _from_file(source: Source, namespace: str, name: str, nodes: int) -> "Explained":
    from msgspec.structs import replace

    from hami.ledger.survey import survey
    from hami.model.errors import Malformed
    from hami.plan.steps import finish as finished
    from hami.scheduler.api.answers import OTHERWISE, whole

    read, filed = source.filed()
    path = f"{source.snapshot}: pod {namespace}/{name}"
    found = next((one for one in read.pods if (one.namespace, one.name) == (namespace, name)), None)
    if found is None:
        raise Malformed(
            path, None, "a pod of the file that asks for cards; it has " + _some([p.ref for p in read.pods])
        )
    ask = filed.asks.get(found.uid)
    if ask is None:
        raise Malformed(path, found.problem or "no ask", "a pod whose ask can be read")
    if ask.empty:
        raise Malformed(path, "no card asked", "a pod that asks for cards")
    answer = whole(finished(survey(filed.ledger, ask, closely=nodes, ask_of=filed.ask_of)))
    return replace(answer, notes=(OTHERWISE,)) if answer.fits and found.node is None else answer


def _some(names: list[object]) -> str:  # type: ignore[explicit-any,unused-ignore]
    shown = ", ".join(str(name) for name in names[:5])
    return (shown or "none") + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def finish(answer: "Explained", output: str) -> None:
    """Print it; the exit status says whether it fits."""
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        from hami.cli.look import pictures

        console = pictures.console()
        for note in answer.notes:
            console.print(f"note: {note}", style="yellow", markup=False)
        console.print(pictures.explained(answer, answer.detail, console.width))
    sys.exit(0 if answer.fits else 1)
