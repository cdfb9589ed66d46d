"""How many of one ask go on one card and on one node, one after the other, where every choice is the best one.

One container of one family is counted in closed form (on cards without MIG), anything else by planning until
nothing more fits. Pure; changes nothing.
"""

from collections.abc import Iterable, Sequence

from hami.model.ask import Ask, CardAsk, ContainerKind
from hami.model.plan import Plan
from hami.plan.exact.fit import fit
from hami.plan.exact.rules import refuse
from hami.plan.exact.wants import wants
from hami.plan.policies import chain
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps, finish

MOST_TRIED = 512
"""Placements tried on one node for an ask that has no closed form; more count as this many."""


def capacity(ask: Ask, node: NodeState) -> int:
    """How many of `ask` the node takes."""
    if node.problem is not None:
        return 0
    one = closed(ask)
    if one is None or node.mig:
        return finish(by_trial(ask, node))
    idle_only = chain(ask.card_policy).idle_only
    cards = node.of(one.family)
    return grouped(one, [(seats_on(one, state, idle_only), state.card.numa) for state in cards])


def closed(ask: Ask) -> CardAsk | None:
    """What the ask comes to where it is one container of one family, which needs no trial; None where it is more."""
    want = wants(ask)
    return want[0].ask if len(want) == 1 and want[0].kind is not ContainerKind.INIT else None


def seats_on(ask: CardAsk, state: CardState, idle_only: bool) -> int:
    """How many containers of this size one card takes beside what it bears."""
    return 0 if refuse(ask, state, idle_only) is not None else seats_left(ask, state, idle_only)


def seats_left(ask: CardAsk, state: CardState, idle_only: bool) -> int:
    """The same of a card that is known to take one."""
    if idle_only:
        return 1
    seats = state.free_slots
    mem = ask.mem_on(state.card.mem_mib)
    if mem:
        seats = min(seats, state.free_mem_mib // mem)
    if ask.core_percent:
        seats = min(seats, state.free_core_percent // ask.core_percent)
    return seats


def grouped(ask: CardAsk, seats: Iterable[tuple[int, int]]) -> int:
    """How many containers of `ask.cards` different cards; each card is told by its seats and its NUMA node."""
    by_numa: dict[int, list[int]] = {}
    for number, numa in seats:
        if number:
            by_numa.setdefault(numa if ask.rules.numa_bind else 0, []).append(number)
    return sum(_groups(own, ask.cards) for own in by_numa.values())


def _groups(seats: Sequence[int], cards: int) -> int:
    """The most groups of `cards` different cards, a card in as many groups as it has seats.

    So many groups can be made exactly if, no card counting for more than once a group, there are seats enough.
    """
    low, high = 0, sum(seats) // cards
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(one, middle) for one in seats) >= middle * cards:
            low = middle
        else:
            high = middle - 1
    return low


def by_trial(ask: Ask, node: NodeState) -> Steps[int]:
    """The same by planning, a plan a step."""
    for placed in range(MOST_TRIED):
        plan = fit(ask, node)
        if not isinstance(plan, Plan):
            return placed
        node = node.bearing(plan.charges)
        yield
    return MOST_TRIED
