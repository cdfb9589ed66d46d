"""`build`, `up`, `down` and `status`: the lab from a shell."""

import os
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hami.lab import versions
from hami.lab.errors import LabError

FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Where the lab keeps its files.  [default: hami/lab below $XDG_CACHE_HOME or ~/.cache]",
)


@click.group(name="lab", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """A real Kubernetes on this machine, without us.

    etcd, API server, controllers, scheduler, and with root a kubelet with containerd. `make demo` has us in it too.

    \b
    hami lab up --detach
    hami lab status
    hami lab down

    Exit status: 0 done, 1 it cannot be done, and what stands in the way, 2 wrong use.
    """


@command.command()
@click.option("--control-plane", is_flag=True, help="Only what needs no root: no kubelet's containerd, runc and CNI.")
@click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), help="Also copy every program into one folder."
)
def build(control_plane: bool, into: Path | None) -> None:
    """Build the lab's programs from source, once a machine and version.

    \b
    hami lab build
    hami lab build --into /tmp/kube    and then HAMI_KUBE_BIN=/tmp/kube elsewhere

    Needs a Go module proxy, a C compiler and 5 GB; takes 8 to 15 minutes on 2 cores, seconds when it is done.

    Exit status: 0 done, 1 it cannot be done, and what stands in the way, 2 wrong use.
    """
    from hami.lab.progress import build_with_bars

    binaries = build_with_bars(versions.CONTROL_PLANE if control_plane else versions.MODULES)
    if into:
        binaries.collect(into)
        click.echo(f"HAMI_KUBE_BIN={into.resolve()}")


@command.command()
@FOLDER
@click.option(
    "--nodes", default="auto", show_default=True, help="Real kubelets; auto is one where this machine can run it."
)
@click.option("--detach", is_flag=True, help="Leave it running and return; end it with `down`.")
def up(folder: Path | None, nodes: str, detach: bool) -> None:
    """Start a lab and print its KUBECONFIG; Ctrl-C ends it.

    \b
    hami lab up
    eval "$(hami lab up --detach)" && kubectl get nodes

    A kubelet needs root; without it there is a control plane alone, and it says so.

    Exit status: 0 when it is ended, or with --detach ready, 1 it cannot start, 2 wrong use.
    """
    from hami.lab import resident
    from hami.lab.node import obstacle
    from hami.lab.progress import build_with_bars

    reason = obstacle()
    if reason and nodes == "auto":
        click.echo(f"control plane only: {reason}", err=True)
    count = int(not reason) if nodes == "auto" else _count(nodes)
    build_with_bars(versions.MODULES if count else versions.CONTROL_PLANE)
    place = resident.Place(folder or resident.default_folder())
    if detach:
        resident.start_detached(place, count)
        click.echo(f"export KUBECONFIG={place.read().kubeconfig}")
        return
    resident.serve(place, count, lambda state: click.echo(f"export KUBECONFIG={state.kubeconfig}"))


@command.command()
@FOLDER
def down(folder: Path | None) -> None:
    """End the lab of this folder, and what killed ones left.

    Exit status: 0 ended, or none ran, 1 something could not be removed.
    """
    from hami.lab import resident, sweep

    ended = resident.stop(resident.Place(folder or resident.default_folder()))
    left = sweep.sweep_dead()
    click.echo("stopped" if ended else "no lab runs there")
    if left:
        raise LabError(f"could not remove: {', '.join(left)}")


@command.command()
@FOLDER
def status(folder: Path | None) -> None:
    """What runs: programs, nodes, versions.

    Exit status: 0 a lab runs, 1 none does.
    """
    from hami.lab import resident

    place = resident.Place(folder or resident.default_folder())
    state = place.running()
    console = Console()
    if state is None:
        console.print(f"no lab runs in {escape(str(place.folder))}")
        sys.exit(1)
    table = Table("part", "pid", "state", box=None)
    for name, pid in state.processes.items():
        table.add_row(escape(name), str(pid), "running" if Path(f"/proc/{pid}").exists() else "[red]ended[/red]")
    console.print(table)
    console.print(f"export KUBECONFIG={state.kubeconfig}", markup=False, soft_wrap=True)
    subprocess.run([state.kubectl, "get", "nodes"], env={**os.environ, "KUBECONFIG": state.kubeconfig}, check=False)


def _count(text: str) -> int:
    if not text.isdigit():
        raise click.BadParameter(f"{text!r} is neither a number nor auto", param_hint="--nodes")
    return int(text)
