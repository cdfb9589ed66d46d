"""A burst of slices on one 8-card node: how long until all are bound, and until all are granted by the agent.

    python -m benchmarks.burst --pods 100 [--json]

With root: a real kubelet, containerd and `hami agent` on simulated cards. Without:
a simulated node, and it says so. Pods are created all at once.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click
from msgspec import Struct

from benchmarks.report import Figure, console, show
from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.reflector import Added, Event, Modified
from hami.kube.watch import follow
from hami.lab import Lab, NodeSpec, obstacle
from hami.lab.agents import start_agent
from hami.lab.images import TOOLS
from hami.lab.product import Product
from hami.sim.cards import Bench, parse
from hami.sim.nodes import Agents, Shape, create_nodes, each
from hami.wire import annotations as keys
from hami.wire.objects import Pod

NODE = "node-1"
CARDS = 8
PATIENCE = 180.0


def slice_pod(number: int) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "2000", "nvidia.com/gpucores": "5"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"slice-{number}", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": TOOLS, "resources": {"limits": limits}}],
        },
    }


class Progress(Struct):
    """When each of `expected` pods reached what, by uid, on our clock."""

    expected: int
    ended: asyncio.Event
    bound: dict[str, float] = {}
    granted: dict[str, float] = {}
    running: dict[str, float] = {}
    failed: dict[str, str] = {}

    def see(self, event: Event[Pod]) -> None:
        if not isinstance(event, Added | Modified):
            return
        pod, now = event.object, time.monotonic()
        uid = pod.metadata.uid
        if pod.spec.node_name:
            self.bound.setdefault(uid, now)
        if (pod.metadata.annotations or {}).get(keys.BIND_PHASE) == keys.PHASE_SUCCESS:
            self.granted.setdefault(uid, now)
        if pod.status.phase == "Running":
            self.running.setdefault(uid, now)
        if pod.status.phase == "Failed":
            self.failed.setdefault(uid, pod.metadata.name)
        if len(self.running) + len(self.failed) >= self.expected:
            self.ended.set()


async def burst(lab: Lab, agents: Callable[[Kube], Any] | None, pods: int) -> tuple[Progress, float]:
    """Create all, and watch until all are granted and run, or patience ends."""
    progress = Progress(pods, asyncio.Event())
    async with await Kube.connect(str(lab.kubeconfig)) as kube, asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(kube, paths.pods("default"), Pod, None, progress.see))]
        if agents:
            tasks.append(group.create_task(agents(kube)))
        await asyncio.sleep(1)
        began = time.monotonic()
        await each(range(pods), lambda number: kube.create(paths.pods("default"), slice_pod(number)), 16)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await progress.ended.wait()
        for task in tasks:
            task.cancel()
    return progress, began


def real(lab: Lab) -> None:
    """The agent on the lab's kubelet."""
    bench = Bench(lab.folder / "cards", parse(f"cards: [{', '.join(['{model: H100}'] * CARDS)}]"))
    product = Product(lab, flags={"log-level": "warning"})
    product.start()
    product.install()
    config = lab.folder / "device-config.yaml"
    config.write_text("nvidia: {deviceSplitCount: 20}\n")
    account = lab.identity(product.site.agent_user)
    start_agent(lab, lab.nodes[NODE], bench.environment, {"device-config-file": str(config)}, identity=account)
    lab.wait_for(
        "cards at kubelet",
        lambda: lab.get("node", NODE)["status"]["allocatable"].get("nvidia.com/gpu") == str(CARDS * 20),
    )


def simulated(lab: Lab) -> Callable[[Kube], Any]:
    """A Node object and an agent that answers at once."""
    product = Product(lab, flags={"log-level": "warning"})
    product.start()
    product.install()

    async def agents(_: Kube) -> None:
        async with await Kube.connect(str(product.agents.kubeconfig)) as kube:
            await create_nodes(kube, [NODE], Shape(cards=CARDS, slots=20))
            await Agents(kube, [NODE]).run()

    return agents


@click.command()
@click.option("--pods", default=100, show_default=True)
@click.option("--simulated", "without_kubelet", is_flag=True, help="No kubelet even where one could run.")
@click.option("--json", "as_json", is_flag=True)
def main(pods: int, without_kubelet: bool, as_json: bool) -> None:
    """A burst of slices on one node."""
    reason = "asked for" if without_kubelet else obstacle()
    if reason:
        console.print(f"no real kubelet: {reason}; the node and its agent are simulated")
    with Lab(nodes=0 if reason else [NodeSpec(NODE, labels={"gpu": "on"})], scheduler=False) as lab:
        lab.wait_for("the default service account", lambda: lab.kubectl("get", "serviceaccount", "default"))
        with console.status("scheduler and agent"):
            agents = simulated(lab) if reason else real(lab)
        with console.status(f"{pods} pods at once"):
            progress, began = asyncio.run(burst(lab, agents, pods))
        bind_failures = lab.kubectl("get", "events", "--field-selector", "reason=BindingFailed", "-o", "name").split()
    last = {
        word: max(times.values(), default=began) - began if len(times) == pods else PATIENCE
        for word, times in (("bound", progress.bound), ("granted", progress.granted), ("running", progress.running))
    }
    failed = len(progress.failed) + len(bind_failures) + pods - len(progress.granted)
    show(
        f"{pods} slices at once on one node of {CARDS} cards, {'simulated' if reason else 'real kubelet and agent'}",
        [
            Figure("bound_s", last["bound"], "s", "until the last was bound", 5),
            Figure("granted_s", last["granted"], "s", "until the agent granted the last", 5),
            Figure("running_s", last["running"], "s", "until the last container ran"),
            Figure("failed", failed, "", "pods failed, never granted, or binds refused", 0),
        ],
        as_json=as_json,
    )


if __name__ == "__main__":
    main()
