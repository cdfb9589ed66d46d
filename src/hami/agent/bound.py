"""Pods bound to this node with their records, in the order in which they were bound.

Fed by the watch and by fresh lists (`app`); read by Allocate, verification and the
timeout. It judges whether a record can be read, not whether it may be granted.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Protocol

from msgspec import Struct

from hami.model.ask import ContainerKind, PodRef
from hami.model.errors import Malformed
from hami.model.ids import Family, PodUid
from hami.model.plan import Charge, ContainerSlices
from hami.plan.exact.charge import charges
from hami.wire import annotations as keys
from hami.wire.objects import Container, ContainerStatus, Metadata, Pod, PodStatus


class AgentMetadata(Metadata, frozen=True, rename="camel"):
    creation_timestamp: str = ""


class AgentStatus(PodStatus, frozen=True, rename="camel"):
    container_statuses: list[ContainerStatus] | None = None


class AgentPod(Pod, frozen=True):
    """A pod with two more fields: the agent orders by the one, and the other tells which containers run."""

    metadata: AgentMetadata = AgentMetadata()
    status: AgentStatus = AgentStatus()


class Records(Protocol):
    """Where a vendor keeps its lists; part of `model.vendor.Vendor`."""

    @property
    def family(self) -> Family: ...
    @property
    def to_allocate_annotation(self) -> str: ...
    @property
    def allocated_annotation(self) -> str: ...


class Share(Struct, frozen=True):
    """One container of a pod and what its record gives it, in the order kubelet allocates."""

    spec: Container
    kind: ContainerKind
    slices: ContainerSlices

    @property
    def name(self) -> str:
        return self.spec.name


class BoundPod(Struct, frozen=True, dict=True):
    """A pod of this node. `problem` says why its record cannot be used; then `shares` have no slices."""

    ref: PodRef
    pod: AgentPod
    shares: tuple[Share, ...]
    phase: str
    """``allocating``, ``success``, ``failed``, or empty where nobody has written one."""
    problem: str | None
    order: tuple[int, str, int]
    """Second of the bind, creation time, then the order in which we heard of it."""
    first_seen: float
    """Seconds of the clock given to `BoundPods`."""

    @cached_property
    def asks(self) -> bool:
        """Whether its record gives it cards."""
        return any(share.slices for share in self.shares)

    @property
    def over(self) -> bool:
        """Finished, or given up by us: its cards are not its own any more."""
        return self.pod.finished or self.phase == keys.PHASE_FAILED

    @property
    def leaving(self) -> bool:
        return self.pod.metadata.deletion_timestamp is not None

    @cached_property
    def charges(self) -> tuple[Charge, ...]:
        """What it takes of each card now, by its record."""
        kinds: list[tuple[ContainerKind, ContainerSlices]] = [(share.kind, share.slices) for share in self.shares]
        return charges(kinds, init_done=self._init_done)

    @property
    def _init_done(self) -> bool:
        """Whether all init containers that run to an end have ended well."""
        ended = {
            status.name
            for status in self.pod.status.init_container_statuses or ()
            if status.state.terminated is not None and status.state.terminated.exit_code == 0
        }
        return all(share.name in ended for share in self.shares if share.kind is ContainerKind.INIT)

    def runs(self, container: str) -> bool:
        """Whether kubelet has reported it as running; where the machine has started anew since, it is not."""
        status = self.pod.status
        reported = (*(status.container_statuses or ()), *(status.init_container_statuses or ()))
        return any(one.name == container and one.state.running is not None for one in reported)

    def share(self, container: str) -> Share | None:
        return next((share for share in self.shares if share.name == container), None)


class BoundPods:
    """The node's pods. `on_change` hears of each pod that came, changed or went, by uid."""

    def __init__(self, node: str, records: Records, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._records = records
        self._clock = clock
        self._pods: dict[PodUid, BoundPod] = {}
        self._heard = 0
        self._in_order: list[BoundPod] | None = None
        self.synced = False
        """Whether a whole list has been seen: before that, a pod that is not here may well exist."""
        self.on_change: Callable[[PodUid], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._pods)

    def put(self, pod: AgentPod) -> None:
        """A pod came or changed. A state older than what is known is ignored."""
        uid = PodUid(pod.metadata.uid)
        known = self._pods.get(uid)
        if known is not None and _older(pod, known.pod):
            return
        if pod.spec.node_name != self._node:
            return
        self._heard += 1
        self._in_order = None
        self._pods[uid] = self._read(pod, known)
        self.on_change(uid)

    def drop(self, uid: PodUid) -> None:
        if self._pods.pop(uid, None) is not None:
            self._in_order = None
            self.on_change(uid)

    def replace(self, pods: Iterable[AgentPod], version: str) -> None:
        """Take over a whole list as of `version`. What it lacks is gone, unless the watch has told of it since."""
        listed = set()
        for pod in pods:
            listed.add(pod.metadata.uid)
            self.put(pod)
        for uid, known in list(self._pods.items()):
            if uid not in listed and _number(known.pod.metadata.resource_version) <= _number(version):
                self.drop(uid)

    def complete(self) -> None:
        """The watch has told everything that exists."""
        self.synced = True

    def get(self, uid: PodUid) -> BoundPod | None:
        return self._pods.get(uid)

    def named(self, namespace: str, name: str) -> list[BoundPod]:
        """Pods of that name: usually one, two while a forcibly deleted one is still around here."""
        return [pod for pod in self._pods.values() if (pod.ref.namespace, pod.ref.name) == (namespace, name)]

    def names(self) -> set[tuple[str, str]]:
        """Namespace and name of each."""
        return {(pod.ref.namespace, pod.ref.name) for pod in self._pods.values()}

    def in_order(self) -> Sequence[BoundPod]:
        """All pods in bind order; those that are being deleted last, since kubelet rarely starts one."""
        if self._in_order is None:
            self._in_order = sorted(self._pods.values(), key=lambda pod: (pod.leaving, pod.order))
        return self._in_order

    def _read(self, pod: AgentPod, known: BoundPod | None) -> BoundPod:
        notes = pod.metadata.annotations or {}
        containers = _containers(pod)
        problem: str | None = None
        slices: tuple[ContainerSlices, ...] = ((),) * len(containers)
        try:
            slices = self._slices(notes, len(containers))
        except Malformed as fault:
            problem = str(fault)
        order = known.order if known else (_second(notes), pod.metadata.creation_timestamp, self._heard)
        return BoundPod(
            ref=PodRef(pod.metadata.namespace, pod.metadata.name, PodUid(pod.metadata.uid)),
            pod=pod,
            shares=tuple(Share(spec, kind, own) for (spec, kind), own in zip(containers, slices, strict=True)),
            phase=notes.get(keys.BIND_PHASE, ""),
            problem=problem,
            order=order,
            first_seen=known.first_seen if known else self._clock(),
        )

    def _slices(self, notes: dict[str, str], count: int) -> tuple[ContainerSlices, ...]:
        """The record, one entry a container. The lasting list is read, since the other one empties."""
        key = self._records.allocated_annotation
        text = notes.get(key)
        if text is None:
            key = self._records.to_allocate_annotation
            text = notes.get(key)
        if text is None:
            return ((),) * count
        path = f"metadata.annotations[{key}]"
        if notes.get(keys.NODE) != self._node:
            raise Malformed(f"metadata.annotations[{keys.NODE}]", notes.get(keys.NODE), f"{self._node}, this node")
        entries = keys.decode_devices(text, self._records.family, path)
        if len(entries) != count:
            raise Malformed(path, text, f"{count} entries, one a container, init containers first")
        return entries


def asking(pods: Iterable[BoundPod]) -> list[BoundPod]:
    """Pods whose records are good and still give them cards."""
    return [pod for pod in pods if pod.problem is None and pod.asks and not pod.over]


def _containers(pod: AgentPod) -> list[tuple[Container, ContainerKind]]:
    """In the order of records and of kubelet's allocation: init containers, then app containers."""
    return [
        *(
            (one, ContainerKind.SIDECAR if one.restart_policy == "Always" else ContainerKind.INIT)
            for one in pod.spec.init_containers or ()
        ),
        *((one, ContainerKind.APP) for one in pod.spec.containers),
    ]


def _second(notes: dict[str, str]) -> int:
    text = notes.get(keys.BIND_TIME, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


def _older(pod: Pod, known: Pod) -> bool:
    """Whether `pod` is a state from before `known`, as a list that raced the watch may bring."""
    return _number(pod.metadata.resource_version) < _number(known.metadata.resource_version)


def _number(version: str) -> int:
    """Versions of one collection rise; -1 for one that is no number."""
    return int(version) if version.isdecimal() else -1
