"""Bound pods as they would have to be planned anew: what each would ask, and where else there is room for it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.ids import Family, NodeName
from hami.model.plan import Charge, ContainerSlices
from hami.plan.exact.fit import fits
from hami.plan.exact.wants import wants
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps


class Resident(Struct, frozen=True):
    """A bound pod, what it holds, and what it would ask elsewhere."""

    pod: PodRef
    node: NodeName
    charges: tuple[Charge, ...]
    ask: Ask
    budgets: tuple[str, ...] = ()
    """Disruption budgets it counts against."""
    fixed: bool = False
    """Never to be named: a pod that is only held, or whose record cannot be read."""


def elsewhere(resident: Resident, nodes: Iterable[NodeState]) -> Steps[NodeName | None]:
    """Another node that would take the pod now."""
    for node in nodes:
        if node.name == resident.node or node.problem is not None or not roomy(resident.ask, node):
            continue
        yield
        if fits(resident.ask, node):
            return node.name
    return None


def roomy(ask: Ask, node: NodeState) -> bool:
    """A cheap look: some card has memory enough for the largest want."""
    largest = max((want.ask.mem_mib or 0 for want in wants(ask)), default=0)
    return any(state.free_mem_mib >= largest and state.free_slots > 0 for state in node.cards)


def stand_in(pod: PodRef, containers: Sequence[ContainerSlices]) -> Ask:
    """What a pod asks as far as its slices tell: sizes, no rules on cards. For a pod whose own ask is not at hand."""
    asks = tuple(
        ContainerAsk(
            "", ContainerKind.APP, tuple(_asked(slices, family) for family in sorted({one.family for one in slices}))
        )
        for slices in containers
    )
    return Ask(pod, asks, card_policy=("binpack",))


def _asked(slices: ContainerSlices, family: str) -> CardAsk:
    own = [one for one in slices if one.family == family]
    return _sized(own[0].family, len(own), max(one.core_percent for one in own), max(one.mem_mib for one in own))


@lru_cache(maxsize=4096)  # a cluster has many pods and few sizes
def _sized(family: Family, cards: int, cores: int, mem_mib: int) -> CardAsk:
    return CardAsk(family, cards, cores, mem_mib=mem_mib)
