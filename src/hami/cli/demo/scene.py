"""What the cluster looks like now: cards, the slices on them, pods, and why one waits.

Read from the API server's objects alone, with the scheduler's own readers, so
that the picture is what a restarted scheduler would believe. Draws nothing.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import ContainerKind
from hami.model.card import Card
from hami.model.ids import CardId
from hami.model.plan import Slice
from hami.model.vendor import Vendor
from hami.scheduler.watch.records import node_record, pod_record
from hami.vendors.ask import container_kinds
from hami.wire import annotations as keys
from hami.wire.objects import Node, Pod


class CardView(Struct, frozen=True):
    """One card and what is taken of it."""

    node: str
    card: Card
    problem: str | None
    slots: int
    mem_mib: int
    core_percent: int
    pods: tuple[str, ...]


class PodView(Struct, frozen=True):
    """One pod: where it is and with what, or why it waits."""

    name: str
    phase: str
    node: str
    slices: tuple[Slice, ...]
    granted: bool
    """The node's agent has handed out the slices, or there is none to hand out."""
    waits_for: str

    @property
    def settled(self) -> bool:
        """It either runs with its grant or waits with a reason."""
        return bool(self.waits_for) or (self.phase == "Running" and self.granted)


class Scene(Struct, frozen=True):
    cards: tuple[CardView, ...]
    pods: tuple[PodView, ...]

    @property
    def settled(self) -> bool:
        return all(pod.settled for pod in self.pods)


class Listing(Struct, frozen=True):
    """`kubectl get -o json` of several kinds: told apart by `kind`, decoded one by one."""

    items: list[msgspec.Raw]


class Kind(Struct, frozen=True):
    kind: str = ""


def decode(listing: bytes | str) -> tuple[list[Node], list[Pod]]:
    """Nodes and pods of one kubectl listing."""
    nodes: list[Node] = []
    pods: list[Pod] = []
    for raw in msgspec.json.decode(listing, type=Listing).items:
        kind = msgspec.json.decode(raw, type=Kind).kind
        if kind == "Node":
            nodes.append(msgspec.json.decode(raw, type=Node))
        elif kind == "Pod":
            pods.append(msgspec.json.decode(raw, type=Pod))
    return nodes, pods


def observe(nodes: Iterable[Node], pods: Iterable[Pod], vendors: Sequence[Vendor]) -> Scene:
    """The scene in the order of names."""
    registered = [record for node in nodes if (record := node_record(node, vendors, lambda _: None))]
    ordered = sorted(pods, key=lambda pod: pod.metadata.name)
    bound = {pod.metadata.name: pod_record(pod, vendors) for pod in ordered if not pod.finished}
    return Scene(
        cards=tuple(
            card_view(record, card, bound)
            for record in sorted(registered, key=lambda record: record.name)
            for card in record.cards
        ),
        pods=tuple(pod_view(pod, bound.get(pod.metadata.name)) for pod in ordered),
    )


def card_view(record: NodeRecord, card: Card, bound: dict[str, PodRecord | None]) -> CardView:
    charges = [
        (name, charge)
        for name, pod in bound.items()
        if pod is not None
        for charge in pod.charges
        if charge.card == card.id
    ]
    cordoned = "cordoned" if card.id in record.cordoned else None
    sick = None if card.healthy else "unhealthy"
    return CardView(
        node=record.name,
        card=card,
        problem=record.problem or sick or cordoned,
        slots=sum(charge.slots for _, charge in charges),
        mem_mib=sum(charge.mem_mib for _, charge in charges),
        core_percent=sum(charge.core_percent for _, charge in charges),
        pods=tuple(name for name, _ in charges),
    )


def pod_view(pod: Pod, record: PodRecord | None) -> PodView:
    phase = (pod.metadata.annotations or {}).get(keys.BIND_PHASE)
    return PodView(
        name=pod.metadata.name,
        phase=pod.status.phase,
        node=pod.spec.node_name or "",
        slices=lasting_slices(pod, record),
        granted=phase in (None, keys.PHASE_SUCCESS),
        waits_for="" if pod.spec.node_name else unscheduled(pod),
    )


def lasting_slices(pod: Pod, record: PodRecord | None) -> tuple[Slice, ...]:
    """What the pod holds while it runs: the slices of its containers that are not over once it has started."""
    if record is None:
        return ()
    kinds = container_kinds(pod)
    return tuple(
        one
        for kind, container in zip(kinds, record.containers, strict=False)
        if kind is not ContainerKind.INIT
        for one in container
    )


def unscheduled(pod: Pod) -> str:
    """kube-scheduler's word on a pod it cannot place, without its appendix on preemption."""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return re.split(r" (?:no new claims|preemption:)", condition.message)[0]
    return ""


def card_names(scene: Scene) -> dict[CardId, str]:
    """Short names, ``node/0``, for uuids that nobody can tell apart."""
    return {view.card.id: f"{view.node}/{view.card.index}" for view in scene.cards}
