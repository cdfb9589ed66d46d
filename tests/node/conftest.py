"""A real kubelet with a real agent on simulated cards; pods are bound with their record as the scheduler does it."""

import asyncio
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from hami.kube import paths
from hami.kube.client import Kube
from hami.lab import Lab, images
from hami.model.plan import Slice
from hami.sim.cards import Bench, parse
from hami.wire import annotations as keys
from hami.wire.objects import Pod

T = TypeVar("T")

RESOURCE = "nvidia.com/gpu"
CARDS = 8


class AgentNode:
    """The lab's node with an agent on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node = lab.nodes["node-1"]
        folder = self.node.folder
        self.bench = Bench(folder / "cards.sim", parse(f"cards: [{', '.join(['{model: A100-40}'] * CARDS)}]"))
        self.port = lab.take_port()
        self.hook = folder / "hook"
        self.hook.mkdir(exist_ok=True)
        self.program = lab.program(
            [
                sys.executable, "-m", "hami", "agent",
                "--node=node-1",
                f"--kubeconfig={lab.kubeconfig}",
                f"--hook-path={self.hook}",
                f"--state-dir={folder / 'agent'}",
                f"--metrics-bind-address=127.0.0.1:{self.port}",
                "--conflict-interval=1",
                "--allocate-timeout=15",
                "--recovery-quiet=2",
            ],
            env=self.bench.environment,
            node=self.node,
            name="agent",
        )  # fmt: skip
        self.wait_ready()

    def wait_ready(self) -> None:
        self.lab.wait_for("agent ready", lambda: self.page("/readyz").endswith("ready\n"), 60)
        self.lab.wait_for("cards counted", lambda: self.allocatable() == CARDS * 10, 60)

    def page(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as fault:
            return fault.read().decode().replace("ready\n", "") + "503"

    def metric(self, name: str) -> float:
        for line in self.page("/metrics").splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    def allocatable(self) -> int:
        return int(self.lab.get("node", "node-1")["status"]["allocatable"].get(RESOURCE, 0))

    def create(self, name: str, *containers: dict[str, Any], inits=(), **spec: Any) -> None:
        """A pod that waits for its scheduler."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"test": "agent"}},
            "spec": {
                "schedulerName": "hami-scheduler",
                "terminationGracePeriodSeconds": 0,
                "containers": list(containers),
                "initContainers": list(inits),
                **spec,
            },
        }
        self.call(lambda kube: kube.create(paths.pods("default"), pod))

    def bind(self, name: str, *slices: list[tuple[int, int, int]], record: bool = True) -> None:
        """What `/bind` does: a Binding whose annotations land on the pod. A list of (card, MiB, cores) a container."""
        self.bind_all({name: slices}, record=record)

    def bind_all(self, wanted: dict[str, tuple[list[tuple[int, int, int]], ...]], record: bool = True) -> None:
        """In the order given, one right after the other, as a scheduler in a burst."""

        async def bind(kube: Kube) -> None:
            for name, slices in wanted.items():
                pod = await kube.get(paths.pods("default", name), Pod)
                body = self.binding(pod, slices if record else None)
                await kube.create(paths.pods("default", name, "binding"), body)

        self.call(bind)

    def binding(self, pod: Pod, slices: tuple[list[tuple[int, int, int]], ...] | None) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": pod.metadata.name, "uid": pod.metadata.uid}
        if slices is not None:
            cards = [[Slice(self.bench.uuid(card), "NVIDIA", mem, cores) for card, mem, cores in one] for one in slices]
            text = keys.encode_devices(cards)
            metadata["annotations"] = {
                keys.NODE: "node-1",
                keys.TIME: str(int(time.time())),
                keys.BIND_TIME: str(int(time.time())),
                keys.BIND_PHASE: keys.PHASE_ALLOCATING,
                "hami.io/vgpu-devices-to-allocate": text,
                "hami.io/vgpu-devices-allocated": text,
            }
        target = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}
        return {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}

    def call(self, work: Callable[[Kube], Coroutine[Any, Any, T]]) -> T:
        """Some calls on one connection; a kubectl for each would take most of the test's time."""

        async def connected() -> T:
            async with await Kube.connect(str(self.lab.kubeconfig)) as kube:
                return await work(kube)

        return asyncio.run(connected())

    def pods(self) -> dict[str, Pod]:
        found = self.call(lambda kube: kube.list(paths.pods("default"), Pod))
        return {pod.metadata.name: pod for pod in found}

    def phase(self, name: str) -> str:
        return self.pods()[name].status.phase

    def wait_running(self, *names: str, within: float = 90.0) -> None:
        def running() -> bool:
            pods = self.pods()
            return all(pods[name].status.phase == "Running" for name in names)

        self.lab.wait_for(f"{', '.join(names)} running", running, within)

    def seen(self, name: str, container: str = "main") -> tuple[dict[str, str], dict[str, str]]:
        """Environment and policy as the container's own program saw them at its start."""
        path = f"{paths.pods('default', name)}/log?container={container}"

        async def log(kube: Kube) -> bytes:
            return await kube.request("GET", path)

        text = self.lab.wait_for("log", lambda: told if "===" in (told := self.call(log).decode()) else None, 60)
        env, _, policy = text.partition("---\n")
        read = {}
        for line in policy.partition("===")[0].splitlines():
            key, _, value = line.partition(" ")
            if key == "card":
                key, _, value = value.partition(" ")
            read[key] = value
        return dict(line.split("=", 1) for line in env.splitlines() if "=" in line), read


LOOK = "env; echo ---; cat /usr/local/vgpu/policy; echo ===; "


def sliced(name: str = "main", mem: int = 1000, cores: int = 10, command: str = "exec sleep 600", cards: int = 1):
    """A container with cards, which first prints what it sees of them."""
    return {
        "name": name,
        "image": images.TOOLS,
        "command": ["/bin/sh", "-c", LOOK + command],
        "resources": {
            "limits": {RESOURCE: str(cards), "nvidia.com/gpumem": str(mem), "nvidia.com/gpucores": str(cores)}
        },
    }


@pytest.fixture(scope="session")
def agent_node(lab_node: Lab) -> AgentNode:
    lab_node.wait_for("service account", lambda: lab_node.get("serviceaccount", "default"))
    return AgentNode(lab_node)


@pytest.fixture
def agent(agent_node: AgentNode) -> Iterator[AgentNode]:
    yield agent_node
    agent_node.lab.kubectl("delete", "pods", "-l", "test=agent", "--now", timeout=120)
