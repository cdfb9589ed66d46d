"""Kubernetes objects into the ledger's records: nodes with cards, pods with slices.

Pure. What cannot be read is never left out: the record then carries a problem,
and the ledger keeps the node from new pods and says why.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from hami.ledger.quota import QuotaRecord
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import ContainerKind
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.ids import CardId, NodeName
from hami.model.plan import ContainerSlices, Slice
from hami.model.quota import Limit, Quantum
from hami.model.vendor import Vendor
from hami.plan.exact.charge import charges
from hami.plan.exact.quota import spent
from hami.vendors.ask import container_kinds, pod_ref
from hami.wire import annotations as keys
from hami.wire import mig
from hami.wire.objects import ContainerStatus, Node, Pod, ResourceQuota
from hami.wire.quantity import parse

NO_ALLOCATABLE = "kubelet offers no {resource}: the node's device plugin is not registered with it"


def node_record(node: Node, vendors: Sequence[Vendor], problem_of: Callable[[str], str | None]) -> NodeRecord | None:
    """The node's cards, or None for a node that registers none.

    `problem_of` judges the agent's life by node name. A family whose record is
    broken or whose plugin is gone puts the whole node out: its agent is one process.
    """
    annotations = node.metadata.annotations or {}
    present = [vendor for vendor in vendors if vendor.register_annotation in annotations]
    if not present:
        return None
    cards: list[Card] = []
    links: dict[CardId, Mapping[CardId, int]] = {}
    cordoned: set[str] = set()
    problems: list[str] = []
    for vendor in present:
        key = vendor.register_annotation
        try:
            found = vendor.decode_register(annotations[key])
            key = vendor.links_annotation or ""
            links.update(vendor.decode_links(annotations[key]) if key in annotations else {})
        except Malformed as fault:
            problems.append(f"annotation {key} {fault}")
            continue
        cards.extend(found)
        cordoned |= vendor.cordoned(annotations)
        if found and not offered(node, vendor.resources[0]):
            problems.append(NO_ALLOCATABLE.format(resource=vendor.resources[0]))
    silent = problem_of(node.metadata.name)
    if silent:
        problems.append(silent)
    return NodeRecord(
        name=NodeName(node.metadata.name),
        cards=tuple(cards),
        cordoned=frozenset(cordoned),
        problem="; ".join(problems) or None,
        links=links,
    )


def offered(node: Node, resource: str) -> bool:
    """Whether kubelet has any of `resource` to give: it takes it to 0 when the plugin goes."""
    return node.status.allocatable.get(resource, "0") != "0"


def pod_record(pod: Pod, vendors: Sequence[Vendor]) -> PodRecord | None:
    """What a bound pod holds; None for a pod that is not bound or has no record of ours."""
    annotations = pod.metadata.annotations
    if not pod.spec.node_name or not annotations:
        return None
    present = [vendor for vendor in vendors if vendor.allocated_annotation in annotations]
    if not present:
        return None
    ref = pod_ref(pod)
    kinds: Sequence[ContainerKind] = container_kinds(pod)
    try:
        merged = merge([slices_of(vendor, annotations) for vendor in present])
        misplaced(annotations, pod.spec.node_name)
    except Malformed as fault:
        return PodRecord(ref, NodeName(pod.spec.node_name), problem=f"its record cannot be read: {fault}")
    if len(merged) != len(kinds):
        # Written by a HAMi that padded by card model (its #1667): positions say nothing, so
        # count every entry as an app container, which is never less than what is used.
        kinds = [ContainerKind.APP] * len(merged)
    parts, done = list(zip(kinds, merged, strict=True)), init_done(pod)
    return PodRecord(
        ref=ref,
        node=NodeName(pod.spec.node_name),
        containers=merged,
        charges=charges(parts, init_done=done),
        priority=pod.spec.priority or 0,
        spent=spent(parts, init_done=done),
    )


def quota_record(quota: ResourceQuota, vendors: Sequence[Vendor]) -> QuotaRecord:
    """The lines of a ResourceQuota that are about cards. Scopes are not looked at: every pod counts, as in HAMi.

    Raises `Malformed`; the API server accepts no quantity that cannot be read.
    """
    hard = quota.spec.hard or {}
    limits = tuple(
        Limit(quantum, _most(hard[quantum.key], quantum))
        for vendor in vendors
        for quantum in vendor.quotas
        if quantum.key in hard
    )
    return QuotaRecord(quota.metadata.namespace, quota.metadata.name, limits)


def _most(text: str | int | float, quantum: Quantum) -> int:
    """The limit in the engine's unit, cut to a whole one."""
    return max(0, math.floor(parse(text, quantum.key) * quantum.unit))


def slices_of(vendor: Vendor, annotations: dict[str, str]) -> tuple[ContainerSlices, ...]:
    key = vendor.allocated_annotation
    slices = keys.decode_devices(annotations[key], vendor.family, f"metadata.annotations[{key}]")
    instances = annotations.get(keys.MIG_ALLOCATIONS)
    if instances is None or not vendor.mig:
        return slices
    path = f"metadata.annotations[{keys.MIG_ALLOCATIONS}]"
    return mig.placed(slices, mig.decode(instances, path), path)


def misplaced(annotations: dict[str, str], node: str) -> None:
    """A record made for another node says nothing about this one."""
    recorded = annotations.get(keys.NODE)
    if recorded is not None and recorded != node:
        raise Malformed(f"metadata.annotations[{keys.NODE}]", recorded, f"the node the pod is bound to, {node}")


def merge(families: Sequence[Sequence[ContainerSlices]]) -> tuple[ContainerSlices, ...]:
    """One entry a container from one list a family, padded to the longest."""
    if len(families) == 1:
        return tuple(families[0])
    merged: list[list[Slice]] = [[] for _ in range(max(map(len, families)))]
    for family in families:
        for container, slices in zip(merged, family, strict=False):
            container.extend(slices)
    return tuple(tuple(container) for container in merged)


def init_done(pod: Pod) -> bool:
    """Whether every init container that ends has ended well, so that its peak is over."""
    ending = {c.name for c in pod.spec.init_containers or () if c.restart_policy != "Always"}
    return bool(ending) and ending <= {s.name for s in pod.status.init_container_statuses or () if succeeded(s)}


def succeeded(status: ContainerStatus) -> bool:
    return status.state.terminated is not None and status.state.terminated.exit_code == 0
