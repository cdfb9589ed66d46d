"""The real agent and a real API server, with a simulated kubelet in place of the real one: runs without root."""

import asyncio
import contextlib
import random
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hami.kube import paths
from hami.kube.client import Kube
from hami.lab import Lab
from hami.model.ids import Family
from hami.model.plan import Slice
from hami.sim.cards import Bench, parse
from hami.sim.kubelet import SimKubelet
from hami.sim.machine import Machine
from hami.wire import annotations as keys
from hami.wire import register
from hami.wire.objects import Node, Pod

RESOURCE = "nvidia.com/gpu"
NODE = "machine-1"
PODS = 80


def pod(name: str, mem: int) -> dict:
    limits = {RESOURCE: "1", "nvidia.com/gpumem": str(mem), "nvidia.com/gpucores": "1"}
    container = {"name": "main", "image": "none", "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"test": "machine"}},
        "spec": {"schedulerName": "hami-scheduler", "containers": [container], "terminationGracePeriodSeconds": 0},
    }


def binding(found: Pod, one: Slice) -> dict:
    text = keys.encode_devices([[one]])
    notes = {
        keys.NODE: NODE,
        keys.BIND_TIME: str(int(time.time())),
        keys.BIND_PHASE: keys.PHASE_ALLOCATING,
        "hami.io/vgpu-devices-to-allocate": text,
        "hami.io/vgpu-devices-allocated": text,
    }
    metadata = {"name": found.metadata.name, "uid": found.metadata.uid, "annotations": notes}
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": metadata,
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def agent(lab: Lab, folder: Path):
    """The agent as a process of its own on eight simulated cards."""
    bench = Bench(folder / "cards.sim", parse(f"cards: [{', '.join(['{model: A100-40}'] * 8)}]"))
    port = lab.take_port()
    argv = [
        sys.executable, "-m", "hami", "agent",
        f"--node={NODE}",
        f"--kubeconfig={lab.kubeconfig}",
        f"--device-plugin-dir={folder / 'device-plugins'}",
        f"--pod-resources-socket={folder / 'pod-resources/kubelet.sock'}",
        f"--hook-path={folder / 'hook'}",
        f"--state-dir={folder / 'state'}",
        "--recovery-quiet=1",
        f"--metrics-bind-address=127.0.0.1:{port}",
    ]  # fmt: skip
    program = lab.program(argv, env=bench.environment, name="machine-agent")
    program.bench, program.port = bench, port
    yield program
    program.kill()
    lab.kubectl("delete", "pods", "-l", "test=machine", "--force", "--grace-period=0")
    lab.kubectl("delete", "node", NODE, "--ignore-not-found")


async def until(done, wait: float) -> None:
    async with asyncio.timeout(wait):
        while not await done():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


def readiness(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.read().decode()


async def test_a_burst_that_fills_every_slot_is_granted_in_any_order(lab: Lab, agent, folder: Path) -> None:
    """Rows 4.8 and 4.9: nothing lost, nothing mixed up, every card and limit that of the record."""
    chance = random.Random(11)
    wanted = {f"s{index:03}": Slice(agent.bench.uuid(index % 8), "NVIDIA", 1000 + index, 1) for index in range(PODS)}
    names = list(wanted)
    chance.shuffle(names)
    async with await Kube.connect(str(lab.kubeconfig)) as kube:
        kubelet = SimKubelet(folder / "device-plugins", folder / "pod-resources/kubelet.sock", chance)
        machine = Machine(kube, NODE, kubelet, shuffle=3)
        machine.settle = 0.2
        running = asyncio.create_task(machine.run())
        try:
            await kubelet_ready(kubelet)
            made = [await kube.create(paths.pods("default"), pod(name, wanted[name].mem_mib), Pod) for name in names]
            started = time.monotonic()
            for one in made:
                body = binding(one, wanted[one.metadata.name])
                await kube.create(paths.pods("default", one.metadata.name, "binding"), body)

            async def granted() -> bool:
                found = await kube.list(paths.pods("default"), Pod, {"labelSelector": "test=machine"})
                phases = [(each.status.phase, (each.metadata.annotations or {})[keys.BIND_PHASE]) for each in found]
                return len(phases) == len(names) and set(phases) == {("Running", "success")}

            await until(granted, 60)
            print(f"granted_s={time.monotonic() - started:.2f} for {len(names)} pods")
            for one in made:
                check(machine, one, wanted[one.metadata.name])
            assert await asyncio.to_thread(metric, agent.port, "hami_agent_exchanged_allocations") == 0
            # The next one would be the eleventh slice of its card.
            last = await kube.create(paths.pods("default"), pod("eleventh", 1000), Pod)
            one = Slice(agent.bench.uuid(0), "NVIDIA", 1000, 1)
            await kube.create(paths.pods("default", "eleventh", "binding"), binding(last, one))

            async def refused() -> bool:
                found = await kube.get(paths.pods("default", "eleventh"), Pod)
                return found.status.phase == "Failed"

            await until(refused, 20)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_a_node_whose_disk_takes_no_grants_offers_its_cards_to_nobody_until_it_does(
    lab: Lab, agent, folder: Path
) -> None:
    """kubelet hears of it, the scheduler by the node's annotation, and people by an event and the agent's pages."""
    async with await Kube.connect(str(lab.kubeconfig)) as kube:
        kubelet = SimKubelet(folder / "device-plugins", folder / "pod-resources/kubelet.sock")
        machine = Machine(kube, NODE, kubelet)
        running = asyncio.create_task(machine.run())

        async def offered(healthy: bool) -> bool:
            node = await kube.get(paths.nodes(NODE), Node)
            text = (node.metadata.annotations or {}).get("hami.io/node-nvidia-register", "[]")
            cards = register.decode(text, Family("NVIDIA"))
            return len(cards) == 8 and all(card.healthy is healthy for card in cards)

        async def told(reason: str) -> bool:
            return reason in await asyncio.to_thread(lab.kubectl, "get", "events", "-A", "-o", "jsonpath={..reason}")

        try:
            await kubelet_ready(kubelet)
            (folder / "state").rename(folder / "away")
            (folder / "state").touch()
            await until(lambda: offered(False), 60)
            await until(lambda: told("DiskUnwritable"), 60)
            assert kubelet.allocatable(RESOURCE) == 0
            assert f"[-]disk cannot write to {folder}/state: " in await asyncio.to_thread(readiness, agent.port)
            assert await asyncio.to_thread(metric, agent.port, "hami_agent_disk_writable") == 0
            (folder / "state").unlink()
            (folder / "away").rename(folder / "state")
            await until(lambda: offered(True), 60)
            await kubelet_ready(kubelet)
            await until(lambda: told("DiskWritable"), 60)
            assert "[+]disk ok" in await asyncio.to_thread(readiness, agent.port)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def kubelet_ready(kubelet: SimKubelet) -> None:
    async with asyncio.timeout(40):
        while kubelet.allocatable(RESOURCE) != 80:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def check(machine: Machine, one: Pod, own: Slice) -> None:
    answer = machine.answers[one.metadata.name, "main"]
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == own.card
    assert answer.envs["CUDA_DEVICE_MEMORY_LIMIT_0"] == f"{own.mem_mib}m"
    path = next(mount.host_path for mount in answer.mounts if mount.container_path == "/usr/local/vgpu/policy")
    policy = Path(path).read_text()
    assert f"container {one.metadata.uid}/main\n" in policy
    assert f"card {own.card} mem_mib {own.mem_mib} core_percent 1\n" in policy
