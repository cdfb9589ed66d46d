"""What `hami agent` costs its node: memory, and CPU while nothing happens.

    python -m benchmarks.agent [--seconds 60] [--json]

Needs root: a real kubelet, the agent on eight simulated cards.
"""

import time

import click

from benchmarks.burst import NODE, real
from benchmarks.proc import child_of, cpu_s, rss_mb
from benchmarks.report import Figure, console, show
from hami.lab import Lab, NodeSpec, obstacle


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long it is watched.")
@click.option("--json", "as_json", is_flag=True)
def main(seconds: float, as_json: bool) -> None:
    """Memory and idle CPU of the agent."""
    reason = obstacle()
    if reason:
        raise click.ClickException(reason)
    with Lab(nodes=[NodeSpec(NODE, labels={"gpu": "on"})], scheduler=False) as lab:
        with console.status("scheduler and agent"):
            real(lab)
        pid = agent_of(lab)
        time.sleep(5)
        with console.status(f"watching the agent for {seconds:g} s"):
            before = cpu_s(pid)
            time.sleep(seconds)
            used = cpu_s(pid) - before
        resident = rss_mb(pid)
    show(
        "hami agent, eight cards, idle",
        [
            Figure("rss_mb", resident, "MB", "resident memory", 80),
            Figure("cpu_percent", used / seconds * 100, "%", "CPU of one core", 1),
        ],
        as_json=as_json,
    )


def agent_of(lab: Lab) -> int:
    """The agent's own process, below what starts it inside the node's mounts."""
    pid = next(program.pid for program in lab.programs if program.name.startswith("agent"))
    while (below := child_of(pid)) != pid:
        pid = below
    return pid


if __name__ == "__main__":
    main()
