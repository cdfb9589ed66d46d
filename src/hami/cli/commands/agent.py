"""`hami agent`: one process a node that finds the cards and hands out their slices."""

from typing import Any

import click

from hami.agent.settings import Settings
from hami.cli.options import from_settings


@from_settings(Settings, names={"node_name": "--node"})
@click.command()
def command(**fields: Any) -> None:
    """Run the node agent: registers the node's cards and serves kubelet's device plugin API."""
    from hami.agent import app

    app.run(Settings(**fields))
