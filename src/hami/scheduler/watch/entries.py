"""Kubernetes objects into the entries of snapshots and records (`wire.snapshot`), read as the scheduler reads them.

Pure: the time and the judgement of agents come in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction

from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord
from hami.model.ask import ContainerKind, Policies
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.vendor import Vendor
from hami.scheduler.watch.records import init_done, node_record, pod_record
from hami.vendors.ask import ask_of, container_kinds
from hami.wire import annotations as keys
from hami.wire.objects import Metadata, Node, Pod
from hami.wire.quantity import parse
from hami.wire.snapshot import AskEntry, LimitEntry, NodeEntry, PodEntry, QuotaEntry, card_entry


class DatedMetadata(Metadata, frozen=True, rename="camel"):
    creation_timestamp: str | None = None


class DatedPod(Pod, frozen=True):
    """A pod with its birthday, which the scheduler does without."""

    metadata: DatedMetadata = DatedMetadata()


def node_entry(node: Node, vendors: Sequence[Vendor], problem_of: Callable[[str], str | None]) -> NodeEntry | None:
    """The node's cards, None for one without."""
    record = node_record(node, vendors, problem_of)
    if record is None:
        return None
    return recorded_node(record, node.status.allocatable)


def recorded_node(record: NodeRecord, allocatable: Mapping[str, str]) -> NodeEntry:
    return NodeEntry(
        name=record.name,
        cards=tuple(card_entry(card, card.id in record.cordoned) for card in record.cards),
        problem=record.problem,
        links={card: dict(others) for card, others in record.links.items()},
        cpu_milli=_ceiling(allocatable.get("cpu"), 1000),
        mem_bytes=_ceiling(allocatable.get("memory"), 1),
    )


def pod_entry(pod: Pod, vendors: Sequence[Vendor], defaults: Policies) -> PodEntry | None:
    """What a pod asks and holds; None for one that has ended, or has nothing to do with cards."""
    if pod.finished:
        return None
    ask, problem = None, None
    try:
        ask = ask_of(pod, vendors, defaults)
    except Malformed as fault:
        problem = str(fault)
    record = pod_record(pod, vendors)
    if record is None and (problem is None and (ask is None or ask.empty)):
        return None
    if record is not None and record.problem:
        problem = record.problem
    metadata = pod.metadata
    return PodEntry(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=PodUid(metadata.uid),
        ask=AskEntry.of(ask) if ask is not None else None,
        node=NodeName(pod.spec.node_name) if pod.spec.node_name else None,
        slices=record.containers if record else (),
        init_done=init_done(pod),
        priority=pod.spec.priority or 0,
        problem=problem,
        created=_seconds(metadata.creation_timestamp) if isinstance(metadata, DatedMetadata) else 0.0,
        bound=_number((metadata.annotations or {}).get(keys.BIND_TIME)),
        cpu_milli=_requested(pod, "cpu", 1000),
        mem_bytes=_requested(pod, "memory", 1),
    )


def _requested(pod: Pod, resource: str, scale: int) -> int:
    """What all that run together request; an init container's peak is left out, it is short."""
    specs = (*(pod.spec.init_containers or ()), *pod.spec.containers)
    total = Fraction(0)
    for spec, kind in zip(specs, container_kinds(pod), strict=True):
        if kind is not ContainerKind.INIT:
            given = (spec.resources.requests or {}).get(resource, (spec.resources.limits or {}).get(resource))
            total += _amount(given) * scale
    return math.ceil(total)


def _ceiling(text: str | None, scale: int) -> int:
    return math.ceil(_amount(text) * scale)


def _amount(given: str | int | float | None) -> Fraction:
    """Zero for what is absent or no quantity: the host's resources are told for the simulator only."""
    if given is None:
        return Fraction(0)
    try:
        return max(Fraction(0), parse(given))
    except Malformed:
        return Fraction(0)


def _seconds(stamp: str | None) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
    except ValueError:
        return 0.0


def _number(text: str | None) -> float:
    return float(text) if text and text.isascii() and text.isdigit() else 0.0


def quota_entry(quota: QuotaRecord) -> QuotaEntry:
    """The lines of a quota that are about cards."""
    limits = (
        LimitEntry(one.quantum.resource, one.quantum.family, one.quantum.measure, one.most, one.quantum.unit)
        for one in quota.limits
    )
    return QuotaEntry(quota.namespace, quota.name, tuple(limits))
