"""A node for tests of the agent: real sockets, real files, a simulated kubelet, pods put by hand."""

import asyncio
import contextlib
import random
import tempfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from hami.agent.bound import AgentMetadata, AgentPod, AgentStatus, BoundPods
from hami.agent.cards.inventory import Found, Inventory
from hami.agent.grant import Host
from hami.agent.grants import recover
from hami.agent.grants.allocate import Allocator, Parts
from hami.agent.grants.checkpoint import Checkpoint
from hami.agent.grants.objection import Rules
from hami.agent.grants.policy import Folders
from hami.agent.grants.seats import Seats
from hami.agent.grants.verify import Verifier
from hami.agent.kubelet.podresources import KubeletFile, PodResources
from hami.agent.meters import Meters
from hami.agent.plugin.registration import Registration
from hami.agent.plugin.service import Plugin
from hami.agent.settings import Settings
from hami.config.schema import NvidiaConfig
from hami.model.card import Card
from hami.model.errors import Unavailable
from hami.model.ids import CardId, Family
from hami.model.plan import Slice
from hami.sim.kubelet import SimKubelet
from hami.vendors.nvidia import Nvidia
from hami.wire import annotations as keys
from hami.wire.objects import Container, EnvVar, PodSpec, Quantities

NVIDIA = Family("NVIDIA")
RESOURCE = "nvidia.com/gpu"


def uuid(index: int) -> CardId:
    return CardId(f"GPU-00000000-0000-4000-8000-{index:012d}")


def card(index: int, **changes) -> Card:
    made = Card(uuid(index), NVIDIA, "NVIDIA-Sim", index, slots=10, mem_mib=40960, core_percent=100, numa=index % 2)
    return replace(made, **changes)


def ask(name="main", *, cards=1, mem=1000, cores=10, slices=None, env=(), sidecar=False, priority=None):
    """A container, and what its record gives it: by default what it asks for, on cards 0.. ."""
    limits = {RESOURCE: str(cards), "nvidia.com/gpumem": str(mem), "nvidia.com/gpucores": str(cores)}
    if priority is not None:
        limits["nvidia.com/priority"] = str(priority)
    spec = Container(
        name=name,
        resources=Quantities(limits=limits),
        env=[EnvVar(name=key, value=value) for key, value in env],
        restart_policy="Always" if sidecar else None,
    )
    if slices is None:
        slices = [Slice(uuid(index), NVIDIA, mem, cores) for index in range(cards)]
    return spec, list(slices)


def plain(name="plain"):
    return Container(name=name), []


def one(card_index, mem=1000, cores=10):
    return [Slice(uuid(card_index), NVIDIA, mem, cores)]


class Api:
    """The API server's pods: what it holds, and what it was told."""

    def __init__(self) -> None:
        self.pods: dict[str, AgentPod] = {}
        self.version = 1000
        self.fetches = 0
        self.down = False

    async def fetch(self):
        self.fetches += 1
        if self.down:
            raise Unavailable("no route to host")
        await asyncio.sleep(0)
        return list(self.pods.values()), str(self.version)


class Told:
    """What would be published."""

    def __init__(self) -> None:
        self.success: list[str] = []
        self.refusals: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str]] = []
        self.messages: list[str] = []
        self.notes: list[tuple[str, str, str]] = []

    def told(self, pod, kind, reason, message):
        self.notes.append((pod.ref.name, reason, message))

    def granted(self, pod):
        self.success.append(pod.ref.name)

    def refused(self, pod, reason, message):
        self.refusals.append((pod.ref.name, reason))
        self.messages.append(message)

    def failed(self, pod, reason, message):
        self.failures.append((pod.ref.name, reason))
        self.messages.append(message)


class Node:
    """The agent's parts on one simulated node."""

    def __init__(self, root: Path, config=None, cards=8, **settings) -> None:
        self.root = root
        self.config = config or NvidiaConfig()
        self.settings = Settings(
            node_name="node-1",
            device_plugin_dir=str(root / "dp"),
            pod_resources_socket=str(root / "pr/kubelet.sock"),
            hook_path=str(root / "hook"),
            state_dir=str(root / "state"),
            **{"allocate_wait": 1.0, "verify_wait": 1.0, **settings},
        )
        self.inventory = Inventory()
        self.inventory.publish([Found(card(index), minor=index) for index in range(cards)])
        self.api = Api()
        self.told = Told()
        self.checkpoint = Checkpoint(root / "state/checkpoint.json")
        self.kubelet = SimKubelet(root / "dp", root / "pr/kubelet.sock", random.Random(7))
        self.watching = True
        self.serial = 0
        self.build()

    def build(self) -> None:
        """A new agent process on the same disk."""
        vgpu = self.root / "hook/vgpu"
        vgpu.mkdir(parents=True, exist_ok=True)
        for name in ("libvgpu.so.1", "ld.so.preload"):
            (vgpu / name).touch()
        vendor = Nvidia(self.config)
        self.pods = BoundPods("node-1", vendor)
        for pod in self.api.pods.values():
            self.pods.put(pod)
        self.resources = PodResources(self.settings.pod_resources_socket, RESOURCE)
        host = Host(
            settings=self.settings,
            read_config=lambda: self.config,
            library=f"{self.settings.hook_path}/vgpu/libvgpu.so.1",
            minor=self.inventory.minor,
        )
        self.parts = Parts(
            pods=self.pods,
            seats=Seats(self.checkpoint),
            kubelet=self.resources,
            kept=KubeletFile(self.settings.device_plugin_dir, RESOURCE).read,
            fetch=self.api.fetch,
            cards=self.inventory,
            host=host,
            vendor=lambda: Nvidia(self.config),
            rules=Rules(self.settings.scheduler_names),
            folders=Folders(
                self.root / "hook/vgpu/allocations",
                Path(self.settings.ledger_dir) if self.settings.ledger_dir else None,
            ),
            outcome=self.told,
            resource=RESOURCE,
        )
        self.allocator = Allocator(self.parts)
        self.verifier = Verifier(self.parts)
        self.plugin = Plugin(
            self.inventory, self.allocator, self.verifier, Meters(), topology=lambda: self.config.enable_numa_topology
        )
        self.registration = Registration(self.plugin, self.settings.device_plugin_dir, RESOURCE, poll=0.02)
        self.task = None

    async def start(self) -> "Node":
        recover.take_over(self.parts)
        self.task = asyncio.create_task(self.registration.run())
        await self.kubelet.registered(RESOURCE)
        return self

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        await self.resources.close()

    async def close(self) -> None:
        await self.stop()
        await self.kubelet.stop()

    async def restart_agent(self) -> None:
        await self.stop()
        self.kubelet.endpoints.clear()
        self.build()
        await self.start()

    def pod(self, name, *containers, inits=(), seen=True, record=True, **changes) -> AgentPod:
        """Bind a pod to the node: the API has it; the watch too, unless `seen` is False."""
        self.serial += 1
        self.api.version += 1
        notes = {}
        if record:
            text = keys.encode_devices([slices for _, slices in (*inits, *containers)])
            notes = {
                keys.NODE: "node-1",
                keys.BIND_TIME: "1700000000",
                keys.BIND_PHASE: keys.PHASE_ALLOCATING,
                "hami.io/vgpu-devices-to-allocate": text,
                "hami.io/vgpu-devices-allocated": text,
            }
        notes |= changes.get("annotations", {})
        made = AgentPod(
            metadata=AgentMetadata(
                name=name,
                namespace="default",
                uid=changes.get("uid", f"uid-{self.serial}"),
                resource_version=str(self.api.version),
                annotations=notes,
                creation_timestamp="2026-01-01T00:00:00Z",
            ),
            spec=PodSpec(
                containers=[spec for spec, _ in containers],
                init_containers=[spec for spec, _ in inits] or None,
                node_name="node-1",
                scheduler_name=changes.get("scheduler", "hami-scheduler"),
            ),
        )
        self.api.pods[made.metadata.uid] = made
        if seen:
            self.pods.put(made)
        return made

    def update(self, pod: AgentPod, phase: str | None = None, **notes) -> AgentPod:
        self.api.version += 1
        annotations = {**(pod.metadata.annotations or {}), **notes}
        metadata = replace(pod.metadata, resource_version=str(self.api.version), annotations=annotations)
        made = replace(pod, metadata=metadata, status=AgentStatus(phase=phase) if phase else pod.status)
        self.api.pods[made.metadata.uid] = made
        self.pods.put(made)
        return made

    def delete(self, pod: AgentPod) -> None:
        self.api.version += 1
        del self.api.pods[pod.metadata.uid]
        self.pods.drop(pod.metadata.uid)

    async def run(self, pod: AgentPod, container="main"):
        """What the container would be run with."""
        return await self.kubelet.start_container(pod.metadata.uid, container)

    def policy(self, answer) -> dict[str, str]:
        """What the library in the container would read: key -> value, cards by uuid."""
        path = next(m.host_path for m in answer.mounts if m.container_path.endswith("/policy"))
        read = {}
        for line in Path(path).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == "card":
                key, _, value = value.partition(" ")
            read[key] = value
        return read


@pytest.fixture
async def make_node():
    """Nodes with a running kubelet and agent; all end with the test."""
    nodes = []
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as folder:  # a socket's path has 108 bytes

        async def make(start=True, **settings) -> Node:
            root = Path(folder) / str(len(nodes))
            root.mkdir()
            node = Node(root, **settings)
            nodes.append(node)
            await node.kubelet.start()
            return await node.start() if start else node

        yield make
        for node in nodes:
            await node.close()


@pytest.fixture
async def node(make_node):
    return await make_node()
