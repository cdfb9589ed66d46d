"""Which pods would have to go so that an ask fits on a node: as few and as unimportant as it takes.

kube-scheduler's own rule: without all pods of lower priority it must fit; then they are let back
one by one, the most important first, as long as it still fits. Who stays out is a victim.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct

from hami.model.ask import Ask, PodRef
from hami.model.plan import Charge, Plan
from hami.plan.fit import fit
from hami.plan.snapshot import NodeState


class Holder(Struct, frozen=True):
    """A pod on the node, what it takes there, and how much it matters."""

    pod: PodRef
    charges: tuple[Charge, ...]
    priority: int
    protected: bool = False
    """Evicting it would break its disruption budget: let back before the others."""


def victims(ask: Ask, node: NodeState, holders: Iterable[Holder]) -> tuple[Holder, ...] | None:
    """The pods to evict, least important first; empty where none has to, None where it does not help.

    No smaller part of the answer would do. Pods of the ask's priority and above are never touched.
    """
    if _fits(ask, node):
        return ()
    lower = [holder for holder in holders if holder.priority < ask.priority and holder.charges]
    free = _without(node, lower)
    if not _fits(ask, free):
        return None
    evicted: list[Holder] = []
    for holder in sorted(lower, key=_importance, reverse=True):
        back = free.bearing(holder.charges)
        if _fits(ask, back):
            free = back
        else:
            evicted.append(holder)
    return tuple(reversed(evicted))


def makes_room(ask: Ask, node: NodeState, holders: Iterable[Holder]) -> bool:
    """Whether `ask` fits once all of `holders` have gone."""
    return _fits(ask, _without(node, holders))


def cost(evicted: Collection[Holder]) -> tuple[int, int, int, int]:
    """Of two nodes, the one with the lower cost is to be preferred: fewer broken budgets, then
    lower highest priority, lower sum of priorities, fewer pods, as kube-scheduler compares them."""
    priorities = [holder.priority for holder in evicted]
    return (
        sum(holder.protected for holder in evicted),
        max(priorities, default=-(2**31)),
        sum(priorities),
        len(evicted),
    )


def _importance(holder: Holder) -> tuple[bool, int, int, str]:
    """Larger shares are let back first among equals, so that fewer pods have to go; then the uid decides."""
    return (holder.protected, holder.priority, sum(one.mem_mib for one in holder.charges), holder.pod.uid)


def _without(node: NodeState, holders: Iterable[Holder]) -> NodeState:
    for holder in holders:
        node = node.bearing(holder.charges, -1)
    return node


def _fits(ask: Ask, node: NodeState) -> bool:
    return isinstance(fit(ask, node), Plan)
