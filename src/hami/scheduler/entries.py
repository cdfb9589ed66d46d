"""Kubernetes objects into the entries of snapshots and records (`wire.snapshot`), read as the scheduler reads them.

Pure: the time and the judgement of agents come in.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction

from msgspec import Struct

from hami.ledger.records import NodeRecord
from hami.model.ask import ContainerKind, Policies
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.model.vendor import Vendor
from hami.scheduler.records import init_done, node_record, pod_record
from hami.vendors.ask import ask_of, container_kinds
from hami.wire import annotations as keys
from hami.wire.objects import Metadata, Node, Pod
from hami.wire.quantity import parse
from hami.wire.snapshot import AskEntry, BudgetEntry, NodeEntry, PodEntry, card_entry


class DatedMetadata(Metadata, frozen=True, rename="camel"):
    creation_timestamp: str | None = None


class DatedPod(Pod, frozen=True):
    """A pod with its birthday, which the scheduler does without."""

    metadata: DatedMetadata = DatedMetadata()


class Requirement(Struct, frozen=True):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class Selector(Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Kubernetes' rule: all must hold; an empty selector covers everything."""
        return all(labels.get(key) == value for key, value in (self.match_labels or {}).items()) and all(
            _meets(one, labels) for one in self.match_expressions or ()
        )


class BudgetSpec(Struct, frozen=True):
    selector: Selector | None = None
    """None covers nothing."""


class BudgetStatus(Struct, frozen=True, rename="camel"):
    disruptions_allowed: int = 0


class DisruptionBudget(Struct, frozen=True):
    """The part of a ``policy/v1`` PodDisruptionBudget that is read."""

    metadata: Metadata = Metadata()
    spec: BudgetSpec = BudgetSpec()
    status: BudgetStatus = BudgetStatus()


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


def budget_entries(budgets: Iterable[DisruptionBudget], pods: Iterable[Pod]) -> list[BudgetEntry]:
    """Which of these pods each budget covers; budgets that cover none are left out."""
    by_namespace: dict[str, list[Pod]] = {}
    for pod in pods:
        by_namespace.setdefault(pod.metadata.namespace, []).append(pod)
    found = []
    for budget in budgets:
        name, namespace, selector = budget.metadata.name, budget.metadata.namespace, budget.spec.selector
        here = by_namespace.get(namespace, ())
        uids = [
            PodUid(pod.metadata.uid)
            for pod in here
            if selector is not None and selector.covers(pod.metadata.labels or {})
        ]
        if uids:
            found.append(BudgetEntry(namespace, name, max(0, budget.status.disruptions_allowed), tuple(sorted(uids))))
    return sorted(found, key=lambda one: (one.namespace, one.name))


def _meets(one: Requirement, labels: Mapping[str, str]) -> bool:
    match one.operator:
        case "In":
            return labels.get(one.key) in (one.values or ())
        case "NotIn":
            return labels.get(one.key) not in (one.values or ())
        case "Exists":
            return one.key in labels
        case "DoesNotExist":
            return one.key not in labels
        case _:
            return True  # unknown: rather protect a pod too many


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
