"""`hami record`: the cluster into a file, one moment or as it goes, for `fit`, `explain`, `frag` and `simulate`."""

import signal
import sys
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from hami.cli.look.source import Source, options
from hami.cli.numbers import Number

if TYPE_CHECKING:
    from hami.model.ask import Policies


def card_words(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    from hami.vendors.policies import CARD_POLICIES
    from hami.wire.annotations import words

    unknown = [word for word in words(text) if word not in CARD_POLICIES]
    if unknown:
        raise click.BadParameter(f"{', '.join(map(repr, unknown))}: known are {', '.join(CARD_POLICIES)}")
    return words(text)


@click.command()
@click.option("--snapshot", "moment", is_flag=True, help="One moment as one JSON object, then stop.")
@click.option("--for", "seconds", type=Number(min=0, min_open=True), help="Stop after so many seconds.")
@click.option(
    "--output-file", "--out", "out", type=click.Path(dir_okay=False, path_type=Path), help="Default: standard output."
)
@click.option("--node-scheduler-policy", "node", type=click.Choice(["binpack", "spread", "pack"]), default="binpack",
              show_default=True, help="What your scheduler was started with: nobody else can tell.")  # fmt: skip
@click.option("--gpu-scheduler-policy", "card", callback=card_words, default="spread", show_default=True,
              help="The same for cards: one word or several, as in mutex,binpack.")  # fmt: skip
@options(live=False, file=False)
def command(
    *, source: Source, moment: bool, seconds: float | None, out: Path | None, node: str, card: tuple[str, ...]
) -> None:
    """Record nodes, pods and what they got, for the others.

    \b
    hami record --snapshot > cluster.json       one moment
    hami record --out cluster.jsonl             until Ctrl-C or SIGTERM
    hami record --for 86400 --out day.jsonl     a day

    Nodes with cards, and the pods that ask for them: arriving, bound, leaving. Reads only.

    Needs your right to list and watch nodes and pods in all namespaces, and to list disruption budgets (without it
    every pod of a snapshot counts as protected) and resource quotas (without it none counts). No environment, image
    or label is written: docs/reference/record.md.

    Exit status: 0 done, or ended by Ctrl-C or SIGTERM, 1 the file cannot be written (a full disk), 2 wrong use, 3 the
    API server does not answer or refuses.
    """
    from hami.config import files
    from hami.model.ask import NodePolicy, Policies

    if moment and seconds is not None:
        raise click.UsageError("--for counts for nothing beside --snapshot: that is one moment")
    policies = Policies(NodePolicy(node), card)
    if out is None:
        _record(source, policies, moment, seconds, sys.stdout.buffer)
        return
    try:
        if moment:  # what stood there before stays unless there is something to put in its place
            found = BytesIO()
            _record(source, policies, moment, seconds, found)
            files.write(out, found.getvalue())
        else:
            with closing(Late(out)) as file:
                _record(source, policies, moment, seconds, file)
    except OSError as fault:
        raise files.unwritable(out, fault) from None


class Late:
    """A file that is opened once there is something to write; until then what stood there stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def write(self, body: bytes) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(body)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _record(source: Source, policies: "Policies", moment: bool, seconds: float | None, file: BinaryIO | Late) -> None:
    from hami.cli.look import recording
    from hami.cli.look.source import run
    from hami.kube.client import Kube
    from hami.observe import log as logs
    from hami.wire import record, snapshot

    logs.setup("text", "WARNING")  # a cut watch is told with its reason, and followed anew

    vendors, count = source.vendors(), 0

    def write(line: record.Line) -> None:
        nonlocal count
        count += 1
        file.write(record.encode(line))
        file.flush()

    async def work() -> None:
        import asyncio
        from contextlib import suppress

        async with Kube(source.target()) as kube:
            if moment:
                file.write(snapshot.encode(await recording.snapshot(kube, vendors, policies)))
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await recording.stream(kube, vendors, policies, write)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who stops services sends this one
    try:
        run(work())
    except KeyboardInterrupt:
        if moment:  # a part of it is nothing
            raise
    finally:
        file.flush()
    if not moment:
        click.echo(f"{count} lines", err=True)
