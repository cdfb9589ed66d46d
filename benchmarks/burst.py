"""A burst of slices on one 8-card node: how long until all are bound, and until all are granted by the agent.

    python -m benchmarks.burst --pods 100 [--json]

With root: a real kubelet, containerd and `hami agent` on simulated cards. Without:
a simulated node, and it says so. Pods are created all at once. The peer is the same burst of
pods that name their node and ask a device plugin that thinks about nothing (`benchmarks.handout`): no
scheduler, no webhook, no choice. Faster than that, kubelet hands out no devices and starts no containers here.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import click
from msgspec import Struct

from benchmarks import handout
from benchmarks.proc import child_of, cpu_s
from benchmarks.report import Figure, console, show
from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.reflector import Added, Event, Modified
from hami.kube.watch import follow
from hami.lab import Lab, NodeSpec, obstacle
from hami.lab.agents import start_agent
from hami.lab.images import TOOLS
from hami.lab.process import Process
from hami.lab.product import Product
from hami.sim.agents import Agents
from hami.sim.cards import Bench, parse
from hami.sim.nodes import Shape, create_nodes, each
from hami.wire import annotations as keys
from hami.wire.objects import Pod

NODE = "node-1"
CARDS = 8
PATIENCE = 180.0


LIMITS = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "2000", "nvidia.com/gpucores": "5"}


def pod(name: str, limits: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": TOOLS, "resources": {"limits": limits}}],
            **spec,
        },
    }


def slice_pod(number: int) -> dict[str, Any]:
    return pod(f"slice-{number}", LIMITS)


def plain_pod(number: int) -> dict[str, Any]:
    return pod(f"plain-{number}", {handout.RESOURCE: "1"}, nodeName=NODE)


class Progress(Struct):
    """When each of `expected` pods reached what, by uid, on our clock."""

    expected: int
    ended: asyncio.Event
    began: float = 0.0
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

    def last(self, times: dict[str, float]) -> float:
        """Seconds until the last pod was in `times`; all of our patience where one never was."""
        return max(times.values()) - self.began if len(times) == self.expected else PATIENCE


async def burst(
    lab: Lab, agents: Callable[[Kube], Any] | None, pods: int, made: Callable[[int], dict[str, Any]]
) -> Progress:
    """Create all, and watch until all are granted and run, or patience ends. Times are seconds from the first."""
    progress = Progress(pods, asyncio.Event())
    async with await Kube.connect(str(lab.kubeconfig)) as kube, asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(kube, paths.pods("default"), Pod, None, progress.see))]
        if agents:
            tasks.append(group.create_task(agents(kube)))
        await asyncio.sleep(1)
        progress.began = time.monotonic()
        await each(range(pods), lambda number: kube.create(paths.pods("default"), made(number)), 16)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await progress.ended.wait()
        for task in tasks:
            task.cancel()
    return progress


class Agent(Struct):
    """The agent under test: its process, and what it says of itself."""

    process: Process
    port: int

    @property
    def pid(self) -> int:
        return child_of(self.process.pid)

    def mean_ms(self, histogram: str) -> float:
        """Milliseconds of one call, by its own metrics."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics") as page:
            lines = page.read().decode().splitlines()
        values = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith(histogram)}
        return values[f"{histogram}_sum"] / max(1.0, values[f"{histogram}_count"]) * 1000


def real(lab: Lab, profile: str = "") -> Agent:
    """The agent on the lab's kubelet; its own CPU time by function goes to the file `profile` when it ends."""
    bench = Bench(lab.folder / "cards", parse(f"cards: [{', '.join(['{model: H100}'] * CARDS)}]"))
    product = Product(lab, flags={"log-level": "warning"})
    product.start()
    product.install()
    config = lab.folder / "device-config.yaml"
    config.write_text("nvidia: {deviceSplitCount: 20}\n")
    account = lab.identity(product.site.agent_user)
    port = lab.take_port()
    flags = {"device-config-file": str(config)}
    python = (sys.executable, *(["-m", "benchmarks.profiled", profile] if profile else []))
    cards = {**bench.environment, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = start_agent(lab, lab.nodes[NODE], cards, flags, identity=account, port=port, python=python)
    wait_for_devices(lab, "nvidia.com/gpu")
    return Agent(process, port)


def wait_for_devices(lab: Lab, resource: str) -> None:
    wanted = str(CARDS * 20)
    lab.wait_for(resource, lambda: lab.get("node", NODE)["status"]["allocatable"].get(resource) == wanted)


def cpu_of(lab: Lab, agent: Agent | None = None) -> dict[str, float]:
    """CPU seconds so far of whoever has a part in a burst; what containerd starts is not among it."""
    node = lab.nodes[NODE]
    parts = {
        "kube-apiserver": lab.control_plane.apiserver.process,
        "etcd": lab.control_plane.etcd.process,
        "kubelet": node.kubelet.process,
        "containerd": node.containerd.process,
    }
    used = {name: cpu_s(child_of(part.pid)) for name, part in parts.items()}
    return {**used, "hami agent": cpu_s(agent.pid)} if agent else used


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


def plain(lab: Lab, pods: int) -> tuple[list[Figure], str]:
    """As many pods with nobody of us in their way: until kubelet has asked for the last device, and until all run."""
    log = lab.folder / "handout.log"
    words = [sys.executable, "-m", "benchmarks.handout", "--devices", str(CARDS * 20), "--log", str(log)]
    plugin = lab.program(words, {"PYTHONPATH": str(Path(__file__).parents[1])}, name="handout", node=lab.nodes[NODE])
    wait_for_devices(lab, handout.RESOURCE)
    before = cpu_of(lab)
    progress = asyncio.run(burst(lab, None, pods, plain_pod))
    note = f"CPU without hami, s  {_cpu_used(before, cpu_of(lab))}"
    lab.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    lab.wait_for("pods to go", lambda: not lab.kubectl("get", "pods", "-o", "name").split(), 120)
    plugin.kill()
    asked = [float(line) for line in log.read_text().split()]
    figures = [
        Figure("plain_granted_s", max(asked) - progress.began, "s", "the peer: until kubelet asked for the last"),
        Figure("plain_running_s", progress.last(progress.running), "s", "the peer: until the last container ran"),
    ]
    return figures, note


def where_time_went(lab: Lab, agent: Agent, before: dict[str, float]) -> list[str]:
    prefer, allocate, verify = (
        agent.mean_ms(f"hami_agent_{what}_seconds") for what in ("preference", "allocation", "verification")
    )
    return [
        f"CPU with hami, s  {_cpu_used(before, cpu_of(lab, agent))}",
        "kubelet waits for the agent, mean  "
        f"{prefer:.1f} ms a preference, {allocate:.1f} ms an Allocate, {verify:.1f} ms a container start",
    ]


def _cpu_used(before: dict[str, float], after: dict[str, float]) -> str:
    used = {name: after[name] - before[name] for name in after}
    return ", ".join(f"{name} {value:.1f}" for name, value in sorted(used.items(), key=lambda one: -one[1]))


@click.command()
@click.option("--pods", default=100, show_default=True)
@click.option("--simulated", "without_kubelet", is_flag=True, help="No kubelet even where one could run.")
@click.option("--profile", default="", help="File for cProfile's record of the agent; it costs time.")
@click.option("--json", "as_json", is_flag=True)
def main(pods: int, without_kubelet: bool, profile: str, as_json: bool) -> None:
    """A burst of slices on one node."""
    reason = "asked for" if without_kubelet else obstacle()
    if reason:
        console.print(f"no real kubelet: {reason}; the node and its agent are simulated")
    notes: list[str] = []
    alone: list[Figure] = []
    with Lab(nodes=0 if reason else [NodeSpec(NODE, labels={"gpu": "on"})], scheduler=False) as lab:
        lab.wait_for("the default service account", lambda: lab.kubectl("get", "serviceaccount", "default"))
        if reason:
            with console.status(f"{pods} pods at once"):
                progress = asyncio.run(burst(lab, simulated(lab), pods, slice_pod))
        else:
            with console.status(f"{pods} pods at once without hami, for comparison"):
                alone, note = plain(lab, pods)
            with console.status("scheduler and agent"):
                agent = real(lab, profile)
            before = cpu_of(lab, agent)
            with console.status(f"{pods} pods at once"):
                progress = asyncio.run(burst(lab, None, pods, slice_pod))
            notes = [note, *where_time_went(lab, agent, before)]
            agent.process.stop()
        bind_failures = lab.kubectl("get", "events", "--field-selector", "reason=BindingFailed", "-o", "name").split()
    failed = len(progress.failed) + len(bind_failures) + pods - len(progress.granted)
    show(
        f"{pods} slices at once on one node of {CARDS} cards, {'simulated' if reason else 'real kubelet and agent'}",
        [
            Figure("bound_s", progress.last(progress.bound), "s", "until the last was bound", 5),
            Figure("granted_s", progress.last(progress.granted), "s", "until the agent granted the last", 5),
            Figure("running_s", progress.last(progress.running), "s", "until the last container ran"),
            *alone,
            Figure("failed", failed, "", "pods failed, never granted, or binds refused", 0),
        ],
        notes,
        as_json=as_json,
    )


if __name__ == "__main__":
    main()
