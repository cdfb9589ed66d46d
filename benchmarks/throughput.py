"""Pods bound a second by a real kube-scheduler, with us as its extender and without.

    python -m benchmarks.throughput --nodes 1000 --pods 2000 --qps default|high [--json]

Real etcd, kube-apiserver and kube-scheduler; simulated nodes and agents. All pods
wait when kube-scheduler starts; the rate is from the first to the last binding
that a watch shows. The reference is the same run, same pods without a card, no extender.
A second one asks for the same three resources and lets kube-scheduler ignore them: what it
takes to look at them on every node is its own cost. A third has an extender that decides nothing
(`benchmarks.echo`): no extender on this machine can be faster than that.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

from benchmarks.proc import child_of, cpu_s, rss_mb
from benchmarks.report import Figure, console, show
from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.reflector import Added, Event, Modified
from hami.kube.watch import follow
from hami.lab.controlplane import Part
from hami.lab.lab import Lab
from hami.lab.process import Process
from hami.lab.product import SCHEDULER, Product, Replica
from hami.sim.nodes import Shape, create_nodes, each
from hami.wire.objects import Pod

LIMITS = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "8000", "nvidia.com/gpucores": "10"}
QPS = {"default": (50, 100), "high": (1000, 2000)}
IGNORING = {
    "profiles": [
        {
            "schedulerName": "default-scheduler",
            "pluginConfig": [{"name": "NodeResourcesFit", "args": {"ignoredResourceGroups": ["nvidia.com"]}}],
        }
    ]
}
NAMESPACE = "bench"
STALL = 60.0
"""Seconds without a binding after which a run is given up."""


def pod(name: str, scheduler: str, limits: dict[str, str], policy: str) -> dict[str, Any]:
    annotations = {"hami.io/node-scheduler-policy": policy} if limits else {}
    resources = {"requests": {"cpu": "10m"}, "limits": limits}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {
            "schedulerName": scheduler,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "simulated", "resources": resources}],
        },
    }


class Bindings:
    """When each pod was seen bound."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def __call__(self, event: Event[Pod]) -> None:
        if isinstance(event, Added | Modified) and event.object.spec.node_name:
            self.at.setdefault(event.object.metadata.uid, time.monotonic())

    @property
    def per_s(self) -> float:
        times = sorted(self.at.values())
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


async def until_bound(bindings: Bindings, count: int) -> None:
    """Until all are bound, or nothing has happened for `STALL` seconds."""
    last = (0, time.monotonic())
    while len(bindings.at) < count:
        await asyncio.sleep(0.1)
        if len(bindings.at) != last[0]:
            last = (len(bindings.at), time.monotonic())
        elif time.monotonic() - last[1] > STALL:
            console.print(f"[red]stalled at {last[0]} of {count} pods[/]")
            return


@asynccontextmanager
async def watching(kube: Kube, bindings: Bindings) -> AsyncIterator[None]:
    task = asyncio.create_task(follow(kube, paths.pods(NAMESPACE), Pod, None, bindings))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Outcome(Struct):
    """One run. `cpu_ms` is what each process used, in milliseconds a pod."""

    per_s: float
    bound: int
    cpu_ms: dict[str, float]


async def bound(kube: Kube, pods: list[dict[str, Any]], start: Callable[[], Part], others: dict[str, int]) -> Outcome:
    """Create the pods, start the scheduler, and see how fast they are bound."""
    bindings = Bindings()
    async with watching(kube, bindings):
        await each(pods, lambda body: kube.create(paths.pods(NAMESPACE), body), 16)
        await asyncio.sleep(2)
        before = {name: cpu_s(pid) for name, pid in others.items()}
        part = await asyncio.to_thread(start)
        await until_bound(bindings, len(pods))
        processes = {**others, "kube-scheduler": child_of(part.process.pid)}
        used = {name: cpu_s(pid) - before.get(name, 0.0) for name, pid in processes.items()}
        await asyncio.to_thread(part.kill)
    done = len(bindings.at)
    return Outcome(bindings.per_s, done, {name: value * 1000 / max(1, done) for name, value in used.items()})


async def clear(kube: Kube) -> None:
    await kube.request("DELETE", paths.pods(NAMESPACE), body={"gracePeriodSeconds": 0}, timeout=120)


class Load(Struct, frozen=True):
    """What is asked of a run."""

    nodes: int
    pods: int
    qps: str
    policy: str
    agents: bool = True
    profile: str | None = None


class Found(Struct):
    """What came out of one."""

    plain: Outcome
    asking: Outcome
    """kube-scheduler alone, its pods naming the resources."""
    echo: Outcome
    """The same with an extender that decides nothing."""
    hami: Outcome
    page: str
    """Our /metrics after the run."""
    rss_mb: float


async def measure(lab: Lab, load: Load) -> Found:
    rate, burst = QPS[load.qps]
    client = {"clientConnection": {"qps": rate, "burst": burst}}
    async with await Kube.connect(str(lab.kubeconfig)) as kube:
        with console.status(f"creating {load.nodes} nodes"):
            await kube.create(paths.namespaces(), {"metadata": {"name": NAMESPACE}})
            await create_nodes(kube, [f"node-{number:05}" for number in range(load.nodes)], Shape())
        agents = start_agents(lab, load.nodes if load.agents else 0)
        processes = {
            "kube-apiserver": child_of(lab.control_plane.apiserver.process.pid),
            "etcd": child_of(lab.control_plane.etcd.process.pid),
            "simulated agents": child_of(agents.pid),
            "this benchmark": os.getpid(),
        }
        with console.status(f"kube-scheduler alone: {load.pods} pods"):
            bodies = [pod(f"plain-{n}", "default-scheduler", {}, load.policy) for n in range(load.pods)]
            plain = await bound(kube, bodies, lambda: lab.start_scheduler(client, "kube-scheduler"), processes)
            await clear(kube)
        with console.status(f"kube-scheduler alone, pods that name the resources: {load.pods} pods"):
            bodies = [pod(f"asking-{n}", "default-scheduler", LIMITS, load.policy) for n in range(load.pods)]
            asking = await bound(
                kube, bodies, lambda: lab.start_scheduler({**client, **IGNORING}, "kube-scheduler"), processes
            )
            await clear(kube)
        with console.status(f"kube-scheduler with an extender that decides nothing: {load.pods} pods"):
            name, product = "kube-echo-scheduler", Product(lab, kube_scheduler=client)
            configuration, echo_server = with_echo(lab, product)
            bodies = [pod(f"echo-{n}", SCHEDULER, LIMITS, load.policy) for n in range(load.pods)]
            others = {**processes, "echo": child_of(echo_server.pid)}
            echo = await bound(kube, bodies, lambda: lab.start_scheduler(configuration, name), others)
            echo_server.kill()
            await clear(kube)
        with console.status(f"kube-scheduler with hami: {load.pods} pods"):
            python = (sys.executable, *(["-m", "benchmarks.profiled", load.profile] if load.profile else []))
            product = Product(lab, kube_scheduler=client, python=python, flags={"log-level": "warning"})
            replica = await asyncio.to_thread(product.start, kube_scheduler=False)
            processes["hami scheduler"] = child_of(replica.process.pid)
            bodies = [pod(f"slice-{n}", SCHEDULER, LIMITS, load.policy) for n in range(load.pods)]
            hami = await bound(
                kube,
                bodies,
                lambda: lab.start_scheduler(product.configuration(replica), "kube-hami-scheduler"),
                processes,
            )
        found = Found(plain, asking, echo, hami, replica.get("/metrics")[1], rss_mb(processes["hami scheduler"]))
        agents.kill()
        replica.process.stop()
    return found


def with_echo(lab: Lab, product: Product) -> tuple[dict[str, Any], Process]:
    """The configuration that `hami scheduler config` prints, with another extender; kube-scheduler binds itself."""
    port, serving = lab.take_port(), product.serving
    words = ["--certificate", serving.certificate, "--key", serving.key, "--authority", serving.authority]
    command = [sys.executable, "-m", "benchmarks.echo", *map(str, words), "--port", str(port)]
    process = lab.program(command, {"PYTHONPATH": str(Path(__file__).parents[1])}, name="echo")
    configuration = product.configuration(Replica("echo", port, port, process))
    extender = configuration["extenders"][0]
    kept = {key: value for key, value in extender.items() if key not in ("bindVerb", "preemptVerb")}
    connection = {**configuration["clientConnection"], "kubeconfig": str(product.caller.kubeconfig)}
    time.sleep(2)  # it has no probe that needs no certificate
    return {**configuration, "extenders": [kept], "clientConnection": connection}, process


def verb_times(page: str) -> dict[str, float]:
    """Mean milliseconds a verb, from our own metrics."""
    found = {}
    for verb in ("filter", "prioritize", "bind"):
        values = {
            part: next(
                float(line.split()[-1])
                for line in page.splitlines()
                if line.startswith(f'hami_scheduler_request_duration_seconds_{part}{{verb="{verb}"}}')
            )
            for part in ("sum", "count")
        }
        found[verb] = values["sum"] / max(1.0, values["count"]) * 1000
    return found


def start_agents(lab: Lab, nodes: int) -> Process:
    """The simulated agents, in a process of their own."""
    words = [sys.executable, "-m", "benchmarks.agents", "--nodes", str(nodes)]
    return lab.program(words, {"PYTHONPATH": str(Path(__file__).parents[1])}, name="agents")


@click.command()
@click.option("--nodes", default=1000, show_default=True)
@click.option("--pods", default=2000, show_default=True)
@click.option("--qps", type=click.Choice(list(QPS)), default="default", show_default=True)
@click.option("--policy", type=click.Choice(["binpack", "spread"]), default="binpack", show_default=True)
@click.option("--agents/--no-agents", default=True, help="Without: nobody grants, and what they patch costs no run.")
@click.option("--profile", type=click.Path(), help="Write a cProfile of the scheduler here; it slows it down.")
@click.option("--json", "as_json", is_flag=True)
def main(as_json: bool, **load: Any) -> None:
    """Pods bound a second, with and without the extender."""
    asked = Load(**load)
    # No controller manager: nothing here needs one, and it would only take its share of the machine from both runs.
    flags = {"disable-admission-plugins": "ServiceAccount,TaintNodesByCondition"}
    with Lab(scheduler=False, apiserver_flags=flags) as lab:
        lab.control_plane.controller_manager.kill()
        found = asyncio.run(measure(lab, asked))
    rate, burst = QPS[asked.qps]
    show(
        f"{asked.pods} pods on {asked.nodes} nodes, {asked.policy}, kube-scheduler at {rate}/{burst} QPS",
        figures(asked, found),
        [
            f"CPU, ms a pod  {name:<10}  {cpus(outcome)}"
            for name, outcome in (
                ("plain", found.plain),
                ("asking", found.asking),
                ("echo", found.echo),
                ("hami", found.hami),
            )
        ],
        as_json=as_json,
    )
    if os.environ.get("BENCH_PAGE"):
        Path(os.environ["BENCH_PAGE"]).write_text(found.page)


def figures(load: Load, found: Found) -> list[Figure]:
    times = verb_times(found.page)
    ratio = found.hami.per_s / found.plain.per_s if found.plain.per_s else 0.0
    floor = 0.95 if load.qps == "default" else 0.6
    missing = 4 * load.pods - sum(one.bound for one in (found.hami, found.plain, found.asking, found.echo))
    return [
        Figure("hami_pods_per_s", found.hami.per_s, "/s", "bound with hami"),
        Figure("plain_pods_per_s", found.plain.per_s, "/s", "bound by kube-scheduler alone"),
        Figure("asking_pods_per_s", found.asking.per_s, "/s", "the same, its pods naming the three resources"),
        Figure("echo_pods_per_s", found.echo.per_s, "/s", "the same with an extender that decides nothing"),
        Figure("ratio", ratio, "", "ratio", floor, at_least=True),
        Figure("cpu_ms_per_pod", found.hami.cpu_ms["hami scheduler"], "ms", "CPU of hami scheduler a pod", 1.2),
        *(Figure(f"{verb}_ms", value, "ms", f"/{verb}, mean") for verb, value in times.items()),
        Figure("rss_mb", found.rss_mb, "MB", "resident memory of hami scheduler"),
        Figure("failed", missing, "", "pods not bound", 0),
    ]


def cpus(outcome: Outcome) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in sorted(outcome.cpu_ms.items(), key=lambda one: -one[1]))


if __name__ == "__main__":
    main()
