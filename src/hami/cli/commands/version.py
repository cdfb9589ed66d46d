"""`hami version`: which build this is, the same string as in logs and `hami_build_info`."""

import json

import click

from hami import __version__


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def command(output: str) -> None:
    """Print the version.

    The same string stands in logs, in `hami_build_info` and in the package's metadata.

    Exit status: 0.
    """
    click.echo(json.dumps({"version": __version__}) if output == "json" else f"hami {__version__}")
