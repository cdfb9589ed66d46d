"""A plan: which cards of one node a pod would get. Nothing has changed yet."""

from msgspec import Struct

from hami.model.ask import PodRef
from hami.model.card import Instance
from hami.model.ids import CardId, Family, NodeName


class Slice(Struct, frozen=True, omit_defaults=True):
    """One container's share of one card."""

    card: CardId
    family: Family
    mem_mib: int
    core_percent: int
    instance: Instance | None = None
    """The MIG instance it is, on a card in MIG mode; memory and cores are then its profile's."""


ContainerSlices = tuple[Slice, ...]
"""What one container gets, in the order of its record."""


class Charge(Struct, frozen=True, omit_defaults=True):
    """What a pod takes from one card while it runs (`plan.exact.charge` says how it is counted)."""

    card: CardId
    slots: int
    mem_mib: int
    core_percent: int
    instances: tuple[Instance, ...] = ()
    """MIG instances, sorted. They stay from the pod's first container to its last."""


class Plan(Struct, frozen=True):
    """A decision for one pod, good as long as the node's generation has not moved."""

    pod: PodRef
    node: NodeName
    containers: tuple[ContainerSlices, ...]
    """One entry a container of the ask, in its order; empty for one that asks nothing."""
    charges: tuple[Charge, ...]
    generation: int
    """The node's generation that was planned on."""
    score: float = 0.0
