"""Which pods would have to go so that an ask fits on a node: as few and as unimportant as it takes.

First by kube-scheduler's own rule: without all pods of lower priority it must fit; then they are let back
one by one, the most important first, as long as it still fits. That finds how important a victim has to be. Where
several stay out, others no more important are tried in their place, for fewer may do: one pod that fills a
card instead of four that share one. `cost` says which is less; the search is exact up to a bound.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import combinations, islice

from msgspec import Struct

from hami.model.ask import Ask, PodRef
from hami.model.ids import CardId
from hami.model.plan import Charge
from hami.plan.exact.fit import fits
from hami.plan.exact.rules import room, standing
from hami.plan.exact.wants import wants
from hami.plan.policies import chain
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps, finish

LOOKED_AT, TRIED = 2048, 128
"""Groups of pods looked at on one node, and exact looks at the node without them: some 30 to 100 ms of one processor,
for a pod of a dozen containers 300. A node of eight cards has fewer groups than that, where victims are pods of one
card and there are up to three of them."""
A_STEP = 16
"""Groups of pods looked at in one step."""
LOWEST = -(2**31)
"""Priorities are 32 bits; added to each, so that fewer pods are always a smaller sum, as kube-scheduler does."""


class Holder(Struct, frozen=True):
    """A pod on the node, what it takes there, and how much it matters."""

    pod: PodRef
    charges: tuple[Charge, ...]
    priority: int
    protected: bool = False
    """Evicting it would break its disruption budget: let back before the others."""


Cost = tuple[int, int, int, int]


def victims(ask: Ask, node: NodeState, holders: Iterable[Holder]) -> tuple[Holder, ...] | None:
    """The pods to evict, least important first; empty where none has to, None where it does not help.

    Nothing that costs less was found to do, and no smaller part of the answer does. Pods of the ask's priority
    and above are never touched.
    """
    return finish(searching(ask, node, holders))


def searching(
    ask: Ask,
    node: NodeState,
    holders: Iterable[Holder],
    most: Cost | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Steps[tuple[Holder, ...] | None]:
    """`victims`, an exact look a step. What costs more than `most` is of no use: where nothing costs as little, the
    first that makes room is good enough an answer. So it is, none of it superfluous, from when `enough` says that the
    time for anything cheaper is over."""
    if fits(ask, node):
        return ()
    lower = [holder for holder in holders if holder.priority < ask.priority and holder.charges]
    free = _without(node, lower)
    yield
    if not fits(ask, free):
        return None
    evicted: list[Holder] = []
    for holder in sorted(lower, key=_importance, reverse=True):
        yield
        back = free.bearing(holder.charges)
        if fits(ask, back):
            free = back
        else:
            evicted.append(holder)
    found = tuple(reversed(evicted))
    broken, highest, *_ = cost(found)
    if most is not None and broken == most[0] == 0 and highest > most[1]:
        return found  # none less important than the highest of them would do
    return (yield from _cheapest(ask, node, lower, found, most=most, enough=enough))


def makes_room(ask: Ask, node: NodeState, holders: Iterable[Holder]) -> bool:
    """Whether `ask` fits once all of `holders` have gone."""
    return fits(ask, _without(node, holders))


def cost(evicted: Collection[Holder]) -> Cost:
    """Of two choices, the one with the lower cost is to be preferred: fewer broken budgets, then
    lower highest priority, then fewer pods, then lower sum of priorities, as kube-scheduler compares them."""
    priorities = [holder.priority for holder in evicted]
    return (
        sum(holder.protected for holder in evicted),
        max(priorities, default=LOWEST),
        sum(priority - LOWEST for priority in priorities),
        len(evicted),
    )


def _cheapest(
    ask: Ask,
    node: NodeState,
    lower: Sequence[Holder],
    found: tuple[Holder, ...],
    *,
    most: Cost | None,
    enough: Callable[[], bool],
) -> Steps[tuple[Holder, ...]]:
    """`found`, or a choice of the same size or smaller that costs less, and no more than `most`."""
    highest = max((one.protected, one.priority) for one in found)
    able = sorted((one for one in lower if (one.protected, one.priority) <= highest), key=_importance)
    best, below, tried = found, cost(found), 0
    for number, group in enumerate(islice(_groups(ask, node, able, len(found)), LOOKED_AT)):
        if len(group) > len(best) or tried == TRIED or enough():
            break
        if number % A_STEP == 0:
            yield
        price = cost(group)
        if price < below and (most is None or price <= most) and _promising(ask, node, group):
            tried += 1
            yield
            if makes_room(ask, node, group):
                best, below = group, price
    return best


def _groups(ask: Ask, node: NodeState, able: Sequence[Holder], most: int) -> Iterator[tuple[Holder, ...]]:
    """Pods that might go together, the fewest first. For an ask of one card only who is on one card."""
    pools = [able]
    asked = wants(ask)
    if len(asked) == 1 and asked[0].ask.cards == 1:
        pools = [[one for one in able if _is_on(one, state.card.id)] for state in node.cards]
    for count in range(1, most + 1):
        for pool in pools:
            yield from combinations(pool, count)


def _is_on(holder: Holder, card: CardId) -> bool:
    return any(charge.card == card for charge in holder.charges)


def _promising(ask: Ask, node: NodeState, group: Sequence[Holder]) -> bool:
    """A cheap look at each container alone: without the group there are cards enough that accept it."""
    if node.mig:
        return True
    idle_only = chain(ask.card_policy).idle_only
    return all(
        sum(
            standing(want.ask.rules, state) is None
            and room(want.ask, state.card, _use_without(state, group), idle_only) is None
            for state in node.of(want.ask.family)
        )
        >= want.ask.cards
        for want in wants(ask)
    )


def _use_without(state: CardState, group: Sequence[Holder]) -> tuple[int, int, int]:
    slots, mem, cores = state.use
    for charge in (one for holder in group for one in holder.charges if one.card == state.card.id):
        slots, mem, cores = slots - charge.slots, mem - charge.mem_mib, cores - charge.core_percent
    return slots, mem, cores


def _importance(holder: Holder) -> tuple[bool, int, int, str]:
    """Larger shares are let back first among equals, so that fewer pods have to go; then the uid decides."""
    return (holder.protected, holder.priority, sum(one.mem_mib for one in holder.charges), holder.pod.uid)


def _without(node: NodeState, holders: Iterable[Holder]) -> NodeState:
    for holder in holders:
        node = node.without(holder.charges)
    return node
