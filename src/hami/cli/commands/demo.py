"""`hami demo`: the whole product on this machine, with the examples placed before your eyes."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from hami.cli.demo.scene import Scene
    from hami.cli.demo.stage import Stage

EXAMPLES = Path(__file__).resolve().parents[4] / "examples"
BETWEEN = 1.5
"""Seconds between submissions, so that a watcher can follow."""
SETTLED = 60.0
"""Seconds after the last submission within which every pod must run or wait with a reason."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave the cluster up until Ctrl-C, and say how to use kubectl with it.")
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=EXAMPLES,
    help="Folder whose *.yaml files are submitted, in the order of their names.  [default: the project's examples/]",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How the end is printed.")
def command(keep: bool, examples: Path, output: str) -> None:
    """Show a real Kubernetes placing pods on shared cards.

    Starts etcd, API server, controllers and kube-scheduler, `hami scheduler` with its webhook and, as root,
    a real kubelet with containerd and `hami agent` on two simulated cards; a few more nodes are simulated.
    Then it submits the examples and draws cards, slices, pods, and why the one that waits waits.

    \b
    hami demo
    hami demo --keep
    hami demo --examples my-folder -o json

    Everything runs on loopback, in a folder of its own, and is gone at the end (Ctrl-C ends it early).

    Exit status: 0 when every pod runs or waits with a reason, 1 when one does not within a minute or no cluster can be
    started, 2 when an example cannot be used.
    """
    from rich.console import Console

    from hami.cli.demo.stage import Stage

    console = Console(stderr=output == "json", width=None if sys.stdout.isatty() else 140)
    started = time.monotonic()
    with Stage(examples, lambda step: console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {step}")) as stage:
        if stage.obstacle:
            console.print(f"[yellow]Simulated kubelets only:[/] {stage.obstacle}.")
        settled = play(stage, console)
        if output == "json":
            import msgspec

            click.echo(msgspec.json.encode(stage.scene()))
        if keep:
            stay(stage, console)
        elif output == "table":
            console.print(summary(stage.scene()))
    sys.exit(0 if settled else 1)


def play(stage: "Stage", console: "Console") -> bool:
    """Submit the examples one by one while the picture is live; whether all came to rest."""
    from rich.live import Live

    from hami.cli.demo.screen import draw

    with Live(console=console, refresh_per_second=4) as live:
        for name, text in stage.submissions:
            live.console.print(f"kubectl apply -f examples/{name}")
            stage.submit(text)
            watch_until = time.monotonic() + BETWEEN
            while time.monotonic() < watch_until:
                live.update(draw(stage.scene(), console.width))
                time.sleep(0.2)
        deadline = time.monotonic() + SETTLED
        while not (scene := stage.scene()).settled and time.monotonic() < deadline:
            live.update(draw(scene, console.width))
            time.sleep(0.3)
        live.update(draw(scene, console.width))
    if not console.is_terminal:  # where the picture is drawn once, its last line is left open
        console.print()
    return scene.settled


def summary(scene: "Scene") -> str:
    waiting = sum(1 for pod in scene.pods if pod.waits_for)
    running = sum(1 for pod in scene.pods if pod.settled and not pod.waits_for)
    restless = len(scene.pods) - waiting - running
    said = f"Pods that run: {running}; that wait, with the reason above: {waiting}"
    said += f"; that did neither within {SETTLED:g} s: {restless}" if restless else ""
    return f"{said}.\nTo keep the cluster, and ask it why a pod waits: make demo ARGS=--keep"


def stay(stage: "Stage", console: "Console") -> None:
    """The commands of the guide work as they are written there, in a shell that takes the first two lines."""
    asked = stage.open()
    folders = f"{Path(sys.executable).parent}:{stage.lab.binaries['kubectl'].parent}"
    pods = stage.scene().pods
    pod = next((one.name for one in pods if one.waits_for), pods[0].name if pods else "NAME")
    lines = [
        f'export KUBECONFIG="{stage.lab.kubeconfig}"',
        f'export PATH="{folders}:$PATH"',
        f"kubectl describe pod {pod}",
        *([] if asked else ["hami record --snapshot > cluster.json    # no address but loopback: nobody can be asked"]),
        f"hami explain pod {pod}{'' if asked else ' --snapshot cluster.json'}",
        f"hami fit --gpu 2 --gpumem 10000 --gpucores 40{'' if asked else ' --snapshot cluster.json'}",
        "hami frag",
        *([f"hami limits top --agent http://127.0.0.1:{stage.agent_port}"] if stage.real_node else []),
    ]
    console.print("\nThe cluster stays until Ctrl-C. In another shell:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"Logs are in {stage.lab.logs}", soft_wrap=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("ending")
