"""`python -m hami.lab`: the same as `hami lab`."""

import sys

import click

from hami.lab.commands import command
from hami.model.errors import HamiError


def main() -> None:
    try:
        command(prog_name="python -m hami.lab", standalone_mode=True)
    except HamiError as fault:
        click.echo(f"lab: {fault}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
