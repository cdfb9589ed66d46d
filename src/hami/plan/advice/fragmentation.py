"""How well what is left fits what is asked: how many of each typical ask still fit, what is free and of no use to them.

Cards and nodes that are alike are looked at once and counted, so a large cluster costs little more than its
variety. What has no closed form (`advice.seats`) is planned, up to a bound on plans for all asks together; an answer
that reached it says on how many nodes it looked. Pure; changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from msgspec import Struct

from hami.model.ask import Ask, CardAsk
from hami.model.card import Card
from hami.model.ids import Family
from hami.plan.advice.census import Alike, Census, census
from hami.plan.advice.free import Look, Stuck, free_on
from hami.plan.advice.seats import by_trial, closed, grouped
from hami.plan.advice.typical import A_STEP, Typical
from hami.plan.exact.wants import wants
from hami.plan.policies import chain
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps

TRIALS = 20_000
"""Plans for one measure, of all asks together. About a second of one processor."""


class Room(Struct, frozen=True):
    """One typical ask and the cluster. All numbers are of the nodes searched."""

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
    searched: int = 0
    """Nodes looked at; fewer than `nodes` where the bound on plans came first."""
    nodes: int = 0
    """Nodes on which anything may be placed."""


class Fragmentation(Struct, frozen=True):
    """The cluster's state against its demand."""

    percent: float
    """The mean of `unusable_percent`, each ask weighing as often as it was seen. 0 is perfect."""
    rooms: tuple[Room, ...]
    """One for each typical ask, the largest first."""


def measure(typical: Sequence[Typical], nodes: Sequence[NodeState], *, trials: int = TRIALS) -> Steps[Fragmentation]:
    """Each step looks at some cards or nodes for one ask, or makes one plan."""
    alike = yield from census(nodes)
    each = (yield from census(nodes, each=True)) if any(_by_card(one.ask) for one in typical) else alike
    largest = _largest(alike)
    rooms: list[Room] = []
    left = trials
    for one in sorted(typical, key=lambda one: _size(one.ask, largest), reverse=True):
        count = _Count(one.ask, each if _by_card(one.ask) else alike, left // (len(typical) - len(rooms)))
        room_for = yield from count.room(one)
        rooms.append(room_for)
        left -= count.tried
    weights = [one.seen for one in rooms] if any(one.seen for one in rooms) else [1] * len(rooms)
    total = sum(weights)
    percent = (
        sum(one.unusable_percent * weight for one, weight in zip(rooms, weights, strict=True)) / total if total else 0.0
    )
    return Fragmentation(percent, tuple(rooms))


def _by_card(ask: Ask) -> bool:
    """Whether cards that are otherwise alike differ to the ask: it names some, or looks at their links."""
    named = any(want.ask.rules.use_ids or want.ask.rules.nouse_ids for want in wants(ask))
    return named or (chain(ask.card_policy).sets is not None and closed(ask) is None)


class _Count:
    """One ask against a census, with so many plans to spend."""

    def __init__(self, ask: Ask, alike: Census, trials: int) -> None:
        self._ask, self._census, self._trials = ask, alike, trials
        self._asks = [want.ask for want in wants(ask)]
        self._idle_only = chain(ask.card_policy).idle_only
        self._closed = closed(ask)
        self._seats: list[int] = []
        """By kind of card, where one closed form serves."""
        self.tried = 0
        """Plans made."""

    def room(self, typical: Typical) -> Steps[Room]:
        looks = {one: Look(one, self._idle_only) for one in self._asks}
        for number, state in enumerate(self._census.cards):
            if number % A_STEP == 0:
                yield
            for look in looks.values():
                look.at(state)
        if self._closed is not None:
            self._seats = looks[self._closed].seats
        fits, searched = yield from self._fits()
        whole = len(searched) == len(self._census.nodes)
        counts = self._census.counts if whole else self._census.counted(searched)
        return Room(
            typical.name,
            typical.seen,
            fits,
            *_at_best(list(self._shares(looks, counts)), fits),
            looks[self._asks[0]].stuck(counts) if self._asks else (),
            sum(one.count for one in searched),
            sum(one.count for one in self._census.nodes),
        )

    def _shares(self, looks: Mapping[CardAsk, Look], counts: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Of each family memory, then cores: free on cards that any of its containers accepts, and taken by one."""
        for family in dict.fromkeys(one.family for one in self._asks):
            asks = [one for one in self._asks if one.family == family]
            free = free_on([looks[one] for one in dict.fromkeys(asks)], counts)
            yield free.mem, sum(one.mem_on(free.mean_mem) * one.cards for one in asks)
            yield free.cores, sum(one.core_percent * one.cards for one in asks)

    def _fits(self) -> Steps[tuple[int, list[Alike]]]:
        fits, searched = 0, []
        for number, alike in enumerate(spread(self._census.nodes)):
            if number % A_STEP == 0:
                yield
            if self._closed is not None and not alike.node.mig:
                found: int | None = self._seated(self._closed, alike)
            else:
                found = yield from self._planned(alike.node)
            if found is not None:
                fits += found * alike.count
                searched.append(alike)
        return fits, searched

    def _seated(self, ask: CardAsk, alike: Alike) -> int:
        if ask.cards == 1:
            return sum(self._seats[kind] for kind in alike.kinds)
        states = zip(alike.kinds, alike.node.cards, strict=True)
        return grouped(ask, [(self._seats[kind], state.card.numa) for kind, state in states])

    def _planned(self, node: NodeState) -> Steps[int | None]:
        """How many go on a node by planning; None where the plans do not suffice to tell."""
        trial = by_trial(self._ask, node)
        while self.tried < self._trials:
            self.tried += 1
            try:
                next(trial)
            except StopIteration as end:
                found: int = end.value
                return found
            yield
        return None


def spread(nodes: Sequence[Alike]) -> Iterator[Alike]:
    """All of them, so that any beginning is a fair part: the most frequent kinds first, then from everywhere."""
    ordered = sorted(nodes, key=lambda one: -one.count)
    stride = max(1, len(ordered) // 16)
    for first in range(stride):
        yield from islice(ordered, first, None, stride)


def _at_best(shares: Sequence[tuple[int, int]], fits: int) -> tuple[int, float]:
    """How many would fit if all that is free lay together, and the percent of it that is of no use as it lies.

    Judged by what runs out first: that is what placing it well would have used.
    """
    least = min(((had / taken, had, taken) for had, taken in shares if taken), default=None)
    if least is None:
        return fits, 0.0
    _, had, taken = least
    unusable = max(0.0, 100.0 * (1 - fits * taken / had)) if had else 0.0
    return max(fits, had // taken), unusable


def _largest(alike: Census) -> dict[Family, Card]:
    """The card with the most memory of each family."""
    largest: dict[Family, Card] = {}
    for state in alike.cards:
        have = largest.get(state.card.family)
        if have is None or state.card.mem_mib > have.mem_mib:
            largest[state.card.family] = state.card
    return largest


def _size(ask: Ask, largest: Mapping[Family, Card]) -> float:
    """How much an ask takes, in cards: each counts as the larger share of the largest card of its family."""
    return sum(_share(want.ask, largest.get(want.ask.family)) * want.ask.cards for want in wants(ask))


def _share(ask: CardAsk, card: Card | None) -> float:
    if card is None or not card.mem_mib or not card.core_percent:
        return 1.0
    return max(ask.mem_on(card.mem_mib) / card.mem_mib, ask.core_percent / card.core_percent)
