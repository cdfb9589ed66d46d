"""A replica's ledger from an API server: the order of reading, the gate meanwhile, and reading anew."""

import asyncio
from typing import Any

import pytest

from hami.scheduler.gate import Gate
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.sync import NodeDoor, PodDoor
from hami.scheduler.watch.watches import Watches
from hami.sim.apiserver import MemoryKube, Store
from hami.sim.nodes import Shape, node_object

pytestmark = pytest.mark.looptime


class Replica:
    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.store = Store()
        self.kube = MemoryKube(self.store)
        self.gate = Gate()
        self.gate.lead()
        handshakes = Handshakes(0.0, lambda: 0.0)
        vendors = stage.engine.vendors
        nodes = NodeDoor(stage.ledger, vendors, handshakes, self.gate, lambda _: None)
        pods = PodDoor(stage.ledger, vendors, stage.engine.waiting, self.gate, lambda _: None)
        self.watches = Watches(self.kube, nodes, pods, self.gate)

    async def node(self, name: str) -> None:
        await self.kube.create("/api/v1/nodes", node_object(name, Shape(cards=1)))

    async def pod(self, name: str, node: str) -> None:
        record = {"hami.io/vgpu-devices-allocated": f"GPU-{node}-0,NVIDIA,1000,0:;"}
        body = {"metadata": {"name": name, "namespace": "ns", "annotations": record}}
        spec = {"spec": {"nodeName": node, "containers": [{"name": "c"}]}}
        await self.kube.create("/api/v1/namespaces/ns/pods", {**body, **spec})


async def test_the_gate_opens_when_everything_was_read_and_stays_open(stage: Any) -> None:
    replica = Replica(stage)
    await replica.node("a")
    await replica.pod("p", "a")
    running = asyncio.create_task(replica.watches.run())
    assert replica.gate.closed is not None
    await asyncio.sleep(5)
    assert replica.gate.closed is None
    assert stage.used("a") == [1000]
    await replica.pod("q", "a")
    await asyncio.sleep(1)
    assert stage.used("a") == [2000]
    assert stage.ledger.recount() == []
    running.cancel()


async def test_reading_anew_closes_the_gate_and_forgets_what_is_gone(stage: Any) -> None:
    replica = Replica(stage)
    for name in ("a", "b"):
        await replica.node(name)
    await replica.pod("p", "a")
    running = asyncio.create_task(replica.watches.run())
    await asyncio.sleep(5)
    await replica.watches.rebuild()
    assert replica.gate.closed is not None, "at once: what comes until then must not be answered"
    await replica.kube.delete("/api/v1/nodes/b")
    await replica.kube.delete("/api/v1/namespaces/ns/pods/p", {"gracePeriodSeconds": 0})
    await asyncio.sleep(5)
    assert replica.gate.closed is None
    assert stage.used("a") == [0]
    assert stage.ledger.node("b") is None
    running.cancel()


async def test_reading_anew_twice_at_once_ends_in_one_open_gate(stage: Any) -> None:
    replica = Replica(stage)
    await replica.node("a")
    running = asyncio.create_task(replica.watches.run())
    await asyncio.sleep(5)
    await replica.watches.rebuild()
    await replica.watches.rebuild()
    await asyncio.sleep(5)
    assert replica.gate.closed is None
    assert not running.done()
    running.cancel()
