"""`hami`, called `kubectl hami` too: one program, its commands loaded when they are called.

A kubectl plugin is typed often, so nothing is imported here but click: each
command lives in a module of its own that imports what it needs when it runs.
"""

import errno
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click

from hami import __version__
from hami.cli import plain
from hami.model.errors import HamiError, Malformed, Retry

COMMANDS = ("agent", "demo", "explain", "fit", "frag", "lab", "limits", "record", "scheduler", "simulate", "version")
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EPIPE)
EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE = 1, 2, 3


class Lazy(click.Group):
    """A group whose commands are the `command` of the module of their name."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"hami.cli.commands.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if words and not words[0].startswith("-") and words[0] not in COMMANDS:
            close = get_close_matches(words[0], COMMANDS, n=1)
            context.fail(f"There is no command {words[0]!r}" + (f"; did you mean {close[0]!r}?" if close else "."))
        return super().resolve_command(context, words)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="hami %(version)s")
def hami() -> None:
    """Share accelerators on Kubernetes: slices of a card's memory and time, placed and enforced.

    Start with `hami demo`: it brings up a real Kubernetes on this machine and shows two pods on one card.

    Exit status: 0 done, 1 failed, 2 wrong use or unusable input, 3 something needed does not answer (try again).
    """


def main() -> None:
    if sys.stdout is None:  # closed by who called us: the exit status is the answer
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  it is kept for good
    plain.prepare()
    try:
        try:
            status = hami.main(standalone_mode=False)
        finally:
            sys.stdout.flush()  # here a disk that is full can still be told
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except HamiError as fault:
        click.echo(f"hami: {fault}{way_out(fault)}", err=True)
        sys.exit(exit_status(fault))
    except OSError as fault:
        if fault.errno not in UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write goes nowhere
        if fault.errno != errno.EPIPE:
            click.echo(f"hami: {fault.filename or 'the answer'} cannot be written: {fault.strerror}", err=True)
        sys.exit(EXIT_FAILED)
    sys.exit(status if isinstance(status, int) else 0)


def exit_status(fault: HamiError) -> int:
    if isinstance(fault, Malformed):
        return EXIT_USAGE
    return EXIT_FAILED if fault.retry is Retry.NEVER else EXIT_UNAVAILABLE


def way_out(fault: HamiError) -> str:
    """What a person can do about a server's answer, which does not say so itself."""
    from hami.kube.errors import Unauthorized, Unreachable

    if isinstance(fault, Unauthorized):
        return "\nThe kubeconfig's token or certificate is not, or no longer, accepted: log in again, or try --context."
    if isinstance(fault, Unreachable):
        return "\nIs the cluster up, and is it the one you mean? See `kubectl config view --minify`."
    return ""
