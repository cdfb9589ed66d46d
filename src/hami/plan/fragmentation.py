"""How well what is left fits what is asked: how many of each typical ask still fit, what is free and of no use to them.

A typical ask is a shape with a weight, learned from the pods that were seen. One container and one family is
counted in closed form (on cards without MIG), anything else by planning until nothing more fits. Pure; changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.card import MIG, Card
from hami.model.ids import Family, PodUid
from hami.model.plan import Plan
from hami.model.refusal import Reason
from hami.plan.fit import fit, wants
from hami.plan.policies import chain
from hami.plan.rules import WHOLE, refuse, standing
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps, finish

LEARNED = 8
"""Typical asks that are learned: the most frequent ones."""
MOST_TRIED = 512
"""Placements tried on one node for an ask that has no closed form; more count as this many."""


class Typical(Struct, frozen=True):
    """An ask as it is made here. `ask.pod` means nothing."""

    name: str
    """For a person: ``1 x 8000 MiB, 30 %``."""
    ask: Ask
    seen: int
    """Pods that asked it; 0 for the whole card, the half and the quarter that are always looked at."""


class Stuck(Struct, frozen=True):
    """Cards that cannot serve an ask, for one reason, and what is free on them all the same."""

    reason: Reason
    cards: int
    free_mem_mib: int
    free_core_percent: int


class Room(Struct, frozen=True):
    """One typical ask and the cluster."""

    name: str
    seen: int
    fits: int
    """How many more would be placed, one after the other."""
    at_best: int
    """How many would, if all that is free on cards it accepts lay together: never fewer."""
    unusable_percent: float
    """Of the free memory or cores (whichever it asks more of), what it cannot use, placed as often as it fits."""
    stuck: tuple[Stuck, ...] = ()
    """What blocks, the most free memory first."""


class Fragmentation(Struct, frozen=True):
    """The cluster's state against its demand."""

    percent: float
    """The mean of `unusable_percent`, each ask weighing as often as it was seen. 0 is perfect."""
    rooms: tuple[Room, ...]
    """One for each typical ask, the largest first."""


def measure(typical: Sequence[Typical], nodes: Sequence[NodeState]) -> Steps[Fragmentation]:
    """Each step looks at one node for one ask."""
    rooms = []
    for one in sorted(typical, key=lambda one: _size(one.ask, nodes), reverse=True):
        room_for = yield from _room(one, nodes)
        rooms.append(room_for)
    weights = [one.seen for one in rooms] if any(one.seen for one in rooms) else [1] * len(rooms)
    total = sum(weights)
    percent = (
        sum(one.unusable_percent * weight for one, weight in zip(rooms, weights, strict=True)) / total if total else 0.0
    )
    return Fragmentation(percent, tuple(rooms))


def learn(asks: Iterable[Ask], nodes: Iterable[NodeState]) -> list[Typical]:
    """The most frequent shapes among `asks`, then a whole card, half and quarter of each family there is."""
    return finish(learning(asks, nodes))


def learning(asks: Iterable[Ask], nodes: Iterable[NodeState]) -> Steps[list[Typical]]:
    """`learn`, an ask a step."""
    shapes: Counter[tuple[ContainerAsk, ...]] = Counter()
    policies: dict[tuple[ContainerAsk, ...], Ask] = {}
    for ask in asks:
        yield
        shape = tuple(ContainerAsk("", one.kind, one.cards) for one in ask.containers if one.cards)
        if shape:
            shapes[shape] += 1
            policies.setdefault(shape, ask)
    found = [
        Typical(_named(shape), _ask(shape, policies[shape].card_policy), seen)
        for shape, seen in shapes.most_common(LEARNED)
    ]
    known = {one.ask.containers for one in found}
    return found + [part for part in standard(nodes) if part.ask.containers not in known]


def standard(nodes: Iterable[NodeState]) -> list[Typical]:
    """What is always looked at."""
    families = sorted({state.card.family for node in nodes for state in node.cards})
    names = {100: "a whole card", 50: "half a card", 25: "a quarter of a card"}
    return [
        Typical(name if len(families) == 1 else f"{name} ({family})", _ask((_part(family, percent),)), 0)
        for family in families
        for percent, name in names.items()
    ]


def _part(family: Family, percent: int) -> ContainerAsk:
    return ContainerAsk("", ContainerKind.APP, (CardAsk(family, 1, percent, mem_percent=percent),))


def _ask(shape: tuple[ContainerAsk, ...], card_policy: tuple[str, ...] = ("binpack",)) -> Ask:
    return Ask(PodRef("", "", PodUid("")), shape, card_policy=card_policy)


def _named(shape: tuple[ContainerAsk, ...]) -> str:
    return " + ".join(spoken(cards) for one in shape for cards in one.cards)


def spoken(ask: CardAsk) -> str:
    """``2 x 10000 MiB, 40 %``: how many cards, and of each how much."""
    mem = f"{ask.mem_mib} MiB" if ask.mem_mib is not None else f"{ask.mem_percent} % memory"
    cores = f", {ask.core_percent} %" if ask.core_percent else ""
    types = f" of {','.join(ask.rules.use_types)}" if ask.rules.use_types else ""
    return f"{ask.cards} x {mem}{cores}{types}"


class _Free:
    """What is free on the cards that one card ask accepts, added up card by card."""

    def __init__(self, ask: CardAsk, idle_only: bool) -> None:
        self._ask = ask
        self._idle_only = idle_only
        self._cards = self._whole_mem = 0
        self.mem = self.cores = 0
        self._stuck: dict[Reason, list[int]] = {}

    def add(self, state: CardState) -> None:
        if state.card.family != self._ask.family or standing(self._ask.rules, state) is not None:
            return
        mem, cores = max(0, state.free_mem_mib), max(0, state.free_core_percent)
        self._cards += 1
        self._whole_mem += state.card.mem_mib
        self.mem += mem
        self.cores += cores
        refusal = refuse(self._ask, state, self._idle_only) if mem or cores else None
        if refusal is not None:
            entry = self._stuck.setdefault(refusal.reason, [0, 0, 0])
            for place, more in enumerate((1, mem, cores)):
                entry[place] += more

    @property
    def takes_mem(self) -> int:
        """MiB of one card, of the mean one where the ask is a percentage."""
        return self._ask.mem_on(self._whole_mem // self._cards if self._cards else 0)

    def stuck(self) -> tuple[Stuck, ...]:
        found = [Stuck(reason, *entry) for reason, entry in self._stuck.items()]
        return tuple(sorted(found, key=lambda one: (-one.free_mem_mib, one.reason.value)))


def _room(typical: Typical, nodes: Sequence[NodeState]) -> Steps[Room]:
    ask, asks = typical.ask, [want.ask for want in wants(typical.ask)]
    free = {one: _Free(one, chain(ask.card_policy).idle_only) for one in asks}
    fits = 0
    for node in nodes:
        yield
        if node.problem is None:
            fits += capacity(ask, node)
            for one in free.values():
                for state in node.cards:
                    one.add(state)
    stuck = free[asks[0]].stuck() if asks else ()
    return Room(typical.name, typical.seen, fits, *_at_best(asks, free, fits), stuck)


def capacity(ask: Ask, node: NodeState) -> int:
    """How many of `ask` the node takes, one after the other, where every choice is the best one."""
    if node.problem is not None:
        return 0
    want = wants(ask)
    if len(want) != 1 or want[0].kind is ContainerKind.INIT or any(one.card.mode == MIG for one in node.cards):
        return _by_trial(ask, node)
    one, idle_only = want[0].ask, chain(ask.card_policy).idle_only
    by_numa: dict[int, list[int]] = {}
    for state in node.of(one.family):
        seats = seats_on(one, state, idle_only)
        if seats:
            by_numa.setdefault(state.card.numa if one.rules.numa_bind else 0, []).append(seats)
    return sum(_groups(seats, one.cards) for seats in by_numa.values())


def seats_on(ask: CardAsk, state: CardState, idle_only: bool) -> int:
    """How many containers of this size one card takes beside what it bears."""
    if refuse(ask, state, idle_only) is not None:
        return 0
    if idle_only:
        return 1
    seats = state.free_slots
    mem = ask.mem_on(state.card.mem_mib)
    if mem:
        seats = min(seats, state.free_mem_mib // mem)
    if ask.core_percent:
        seats = min(seats, state.free_core_percent // ask.core_percent)
    return min(seats, 1) if ask.core_percent == WHOLE == state.card.core_percent else seats


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


def _by_trial(ask: Ask, node: NodeState) -> int:
    for placed in range(MOST_TRIED):
        plan = fit(ask, node)
        if not isinstance(plan, Plan):
            return placed
        node = node.bearing(plan.charges)
    return MOST_TRIED


def _at_best(asks: Sequence[CardAsk], free: Mapping[CardAsk, _Free], fits: int) -> tuple[int, float]:
    """How many would fit if all that is free lay together, and the percent of it that is of no use as it lies."""
    mem = (sum(one.mem for one in free.values()), sum(free[one].takes_mem * one.cards for one in asks))
    cores = (sum(one.cores for one in free.values()), sum(one.core_percent * one.cards for one in asks))
    most = [had // taken for had, taken in (mem, cores) if taken]
    if not most:
        return fits, 0.0
    # Judged by what runs out first: that is what placing it well would have used.
    had, taken = min((mem, cores), key=lambda pair: pair[0] / pair[1] if pair[1] else float("inf"))
    unusable = max(0.0, 100.0 * (1 - fits * taken / had)) if had else 0.0
    return max(fits, min(most)), unusable


def _size(ask: Ask, nodes: Iterable[NodeState]) -> float:
    """How much an ask takes, in cards: each counts as the larger share of the largest card of its family."""
    largest: dict[Family, Card] = {}
    for node in nodes:
        for state in node.cards:
            have = largest.get(state.card.family)
            if have is None or state.card.mem_mib > have.mem_mib:
                largest[state.card.family] = state.card
    return sum(_share(want.ask, largest.get(want.ask.family)) * want.ask.cards for want in wants(ask))


def _share(ask: CardAsk, card: Card | None) -> float:
    if card is None or not card.mem_mib or not card.core_percent:
        return 1.0
    return max(ask.mem_on(card.mem_mib) / card.mem_mib, ask.core_percent / card.core_percent)
