"""`hami agent`: one process a node that finds the cards and hands out their slices."""

from typing import Any

import click

from hami.agent.settings import Settings
from hami.cli.options import from_settings


@from_settings(Settings, names={"node_name": "--node"})
@click.command()
def command(**fields: Any) -> None:
    """Run a node's agent: registers its cards, hands out slices.

    It runs until SIGTERM or Ctrl-C, as root, once on each node with cards; containers go on without it. Each option is
    an environment variable, too: HAMI_ and its name. Times are seconds. Whether it is well says
    http://NODE:9394/readyz; what it has granted, /metrics and `hami limits top`.

    \b
    hami agent --node "$(hostname)" --kubeconfig /etc/kubernetes/kubelet.conf

    Exit status: 0 told to stop, 1 a fault, 2 wrong use, 3 something needed is not to be had: another agent has the
    state folder, the address of the pages is taken, the driver was replaced (start it again).
    """
    from hami.agent import app

    app.run(Settings(**fields))
