"""From the start of `hami scheduler` to the moment it decides: the ledger rebuilt from a real API server alone.

python -m benchmarks.restart --nodes 5000 --pods 50000 [--json]
"""

import asyncio
import sys
import time
from typing import Any

import click

from benchmarks.proc import child_of, cpu_s, rss_mb
from benchmarks.report import Figure, console, show
from hami.kube import paths
from hami.kube.client import Kube
from hami.lab.lab import Lab
from hami.lab.product import Product, Replica
from hami.sim.nodes import Shape, create_nodes, each

SHAPE = Shape(slots=20)
NAMESPACE = "bench"


def bound_pod(number: int, nodes: int) -> dict[str, Any]:
    """A running slice: 2000 MiB of one card, cards filled in turn."""
    node = f"node-{number % nodes:05}"
    card = number // nodes % SHAPE.cards
    record = f"GPU-{node}-{card},NVIDIA,2000,5:;"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"slice-{number}",
            "namespace": NAMESPACE,
            "labels": {"app": f"app-{number % 500}"},
            "annotations": {
                "hami.io/vgpu-node": node,
                "hami.io/vgpu-time": "1700000000",
                "hami.io/bind-time": "1700000000",
                "hami.io/bind-phase": "success",
                "hami.io/vgpu-devices-allocated": record,
                "hami.io/vgpu-devices-to-allocate": ";",
            },
        },
        "spec": {
            "nodeName": node,
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/team/training:2026.11",
                    "env": [{"name": f"SETTING_{n}", "value": "a value of some length"} for n in range(8)],
                    "resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "2000"}},
                }
            ],
        },
    }


async def populate(lab: Lab, nodes: int, pods: int) -> None:
    async with await Kube.connect(str(lab.kubeconfig)) as kube:
        with console.status(f"creating {nodes} nodes"):
            await kube.create(paths.namespaces(), {"metadata": {"name": NAMESPACE}})
            await create_nodes(kube, [f"node-{number:05}" for number in range(nodes)], SHAPE)
        with console.status("creating pods") as status:
            done = 0

            async def create(number: int) -> None:
                nonlocal done
                await kube.create(paths.pods(NAMESPACE), bound_pod(number, nodes))
                done += 1
                if done % 500 == 0:
                    status.update(f"creating pods: {done} of {pods}")

            await each(range(pods), create, 24)


def counted(replica: Replica) -> int:
    """Bound pods the replica has in its ledger."""
    page = replica.get("/metrics")[1]
    return int(float(next(line for line in page.splitlines() if line.startswith("hami_scheduler_pods ")).split()[1]))


@click.command()
@click.option("--nodes", default=5000, show_default=True)
@click.option("--pods", default=50_000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(nodes: int, pods: int, as_json: bool) -> None:
    """Seconds from start to ready."""
    flags = {"disable-admission-plugins": "ServiceAccount,TaintNodesByCondition"}
    with Lab(scheduler=False, apiserver_flags=flags) as lab:
        lab.control_plane.controller_manager.kill()
        asyncio.run(populate(lab, nodes, pods))
        product = Product(lab, python=(sys.executable,))
        apiserver = child_of(lab.control_plane.apiserver.process.pid)
        time.sleep(3)
        before = cpu_s(apiserver)
        began = time.monotonic()
        with console.status("starting the scheduler"):
            replica = product.start(kube_scheduler=False)
        ready = time.monotonic() - began
        pid = child_of(replica.process.pid)
        own, servers, resident = cpu_s(pid), cpu_s(apiserver) - before, rss_mb(pid)
        found = counted(replica)
    show(
        f"start to ready with {nodes} nodes and {pods} pods",
        [
            Figure("ready_s", ready, "s", "from exec to /readyz", 10),
            Figure("cpu_s", own, "s", "CPU of the scheduler until then"),
            Figure("apiserver_cpu_s", servers, "s", "CPU of kube-apiserver until then"),
            Figure("rss_mb", resident, "MB", "resident memory of the scheduler", 500),
            Figure("missing", pods - found, "", "pods not in the ledger", 0),
        ],
        as_json=as_json,
    )


if __name__ == "__main__":
    main()
