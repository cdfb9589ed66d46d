"""The product's agent on a lab's real node: the same program, in the node's mounts, on the cards it is given."""

import sys
from collections.abc import Mapping, Sequence

from hami.lab.controlplane import HOST, HttpProbe
from hami.lab.lab import Identity, Lab
from hami.lab.node import Node
from hami.lab.process import Process

READY_SECONDS = 30.0


def start_agent(
    lab: Lab,
    node: Node,
    cards: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
    *,
    identity: Identity | None = None,
    python: Sequence[str] = (sys.executable,),
    port: int | None = None,
) -> Process:
    """`hami agent` beside the node's kubelet, ready when it has registered.

    `cards` is the environment that leads NVML to the cards (`sim.cards.Bench.environment`,
    or nothing for real ones). `identity` is the user it calls the API server as. Metrics are on `port`.
    """
    port = port or lab.take_port()
    home = node.folder / "agent"
    settings = {
        "node-name": node.name,
        "metrics-bind-address": f"{HOST}:{port}",
        "hook-path": str(home / "hook"),
        "state-dir": str(home / "state"),
        "cdi-dir": str(home / "cdi"),
        "log-format": "text",
        **(flags or {}),
    }
    words = [f"--{name}={value}" for name, value in settings.items()]
    process = lab.program(
        [*python, "-m", "hami", "agent", *words],
        env=dict(cards),
        name=f"agent-{node.name}",
        node=node,
        kubeconfig=identity.kubeconfig if identity else None,
    )
    process.wait_ready(HttpProbe(port, "/readyz"), READY_SECONDS)
    return process
