"""`hami scheduler`: run a replica; `hami scheduler config`: print what the cluster needs to use it."""

from typing import Any

import click

from hami.cli.options import from_settings
from hami.scheduler.settings import Settings


@from_settings(Settings)
@click.group(invoke_without_command=True)
@click.pass_context
def command(context: click.Context, /, **fields: Any) -> None:
    """Run the scheduler: extender of a stock kube-scheduler, and admission webhook.

    It decides which node and which cards a pod gets, holds the slice, and binds the pod
    with its record in one request. `hami scheduler config` prints the objects that make
    kube-scheduler and the API server call it.
    """
    if context.invoked_subcommand is not None:
        return
    from hami.scheduler import app

    app.run(Settings(**fields))
