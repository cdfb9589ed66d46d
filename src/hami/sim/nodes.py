"""Simulated nodes: Node objects with registered cards.

For scale and for the demo: the control plane is real, the machines are not. `agents` answers for them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import AlreadyExists
from hami.model.card import MIG, Card, MigProfile
from hami.model.ids import CardId, Family
from hami.wire import register

log = logging.getLogger(__name__)

REGISTER = "hami.io/node-nvidia-register"
SCORES = "hami.io/node-nvidia-score"
LABEL = "hami.io/simulated"


class Shape(Struct, frozen=True):
    """What each simulated node has."""

    cards: int = 8
    mem_mib: int = 81920
    slots: int = 10
    model: str = "NVIDIA-NVIDIA H100 80GB HBM3"
    cpu: str = "64"
    memory: str = "512Gi"
    pods: int = 250
    resource: str = "nvidia.com/gpu"
    links: tuple[tuple[int, ...], ...] = ()
    """What the links between each two cards are worth, a row a card."""
    mig_profiles: tuple[MigProfile, ...] = ()
    """What its cards offer; with any they are in MIG mode."""


PLAIN = Shape()


def cards_of(node: str, shape: Shape) -> tuple[Card, ...]:
    """The node's cards, ids made of the node's name; two NUMA nodes."""
    return tuple(
        Card(
            id=CardId(f"GPU-{node}-{index}"),
            family=Family("NVIDIA"),
            model=shape.model,
            index=index,
            slots=shape.slots,
            mem_mib=shape.mem_mib,
            core_percent=100,
            numa=index * 2 // shape.cards,
            mode=MIG if shape.mig_profiles else "hami-core",
            mig_profiles=shape.mig_profiles,
        )
        for index in range(shape.cards)
    )


def node_object(name: str, shape: Shape, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A Ready Node whose kubelet offers the cards' slots."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    amounts = {
        "cpu": shape.cpu,
        "memory": shape.memory,
        "pods": str(shape.pods),
        shape.resource: str(shape.cards * shape.slots),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, LABEL: "true", "gpu": "on", **(labels or {})},
            "annotations": registered(name, shape),
        },
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Simulated",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
            ],
            "nodeInfo": {"kubeletVersion": "v1.34.4", "operatingSystem": "linux", "architecture": "amd64"},
        },
    }


def registered(name: str, shape: Shape) -> dict[str, str]:
    """What the node's agent writes of its cards."""
    cards = cards_of(name, shape)
    written = {REGISTER: register.encode(cards)}
    if shape.links:
        scores = {
            card.id: {other.id: row[other.index] for other in cards if other is not card}
            for card, row in zip(cards, shape.links, strict=True)
        }
        written[SCORES] = register.encode_scores(scores)
    return written


async def create_nodes(
    kube: Kube,
    names: Iterable[str],
    shape: Shape = PLAIN,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Create the Node objects, 16 at a time. Ones that exist stay as they are."""
    await each(names, lambda name: _create(kube, node_object(name, shape, labels)), 16)


async def _create(kube: Kube, node: dict[str, Any]) -> None:
    try:
        await kube.create(paths.nodes(), node)
    except AlreadyExists:
        log.debug("node %s exists", node["metadata"]["name"])


async def each(items: Iterable[Any], work: Callable[[Any], Any], at_once: int) -> None:
    """`work` on every item, `at_once` in flight. The first fault ends it."""
    source = iter(items)

    async def worker() -> None:
        for item in source:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
