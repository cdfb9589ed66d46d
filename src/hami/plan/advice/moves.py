"""The fewest pods to move so that an ask fits on some node: a suggestion, nothing is moved here.

Only pods on the cards where the ask would go are moved (never one to make room for another), each to a place that
was planned for it, in the state that the moves before it leave. No disruption budget is overdrawn. The search is
exact up to a bound on trials, and says whether it reached it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, permutations

from msgspec import Struct

from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge, ContainerSlices, Plan
from hami.plan.exact import score
from hami.plan.exact.fit import fit, fits
from hami.plan.exact.rules import WHOLE, standing
from hami.plan.exact.wants import wants
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps

MOST_MOVES = 4
TRIALS = 20_000
"""Exact looks at one node. About two seconds of one processor."""

Nodes = Mapping[NodeName, NodeState]


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


class Move(Struct, frozen=True):
    """One pod to another place; `plan` says which cards."""

    pod: PodRef
    source: NodeName
    plan: Plan


class Relief(Struct, frozen=True):
    """What frees an ask."""

    plan: Plan
    """Where the ask then fits."""
    moves: tuple[Move, ...]
    """In the order in which they work. No fewer moves of pods on the cards of one node would do."""

    def after(self, nodes: Nodes, residents: Iterable[Resident]) -> dict[NodeName, NodeState]:
        """The cluster with the moves made and the ask not placed yet."""
        charges = {one.pod.uid: one.charges for one in residents}
        world = dict(nodes)
        for move in self.moves:
            world[move.source] = world[move.source].bearing(charges[move.pod.uid], -1)
            world[move.plan.node] = world[move.plan.node].bearing(move.plan.charges)
        return world


class NoRelief(Struct, frozen=True):
    """No moves were found."""

    searched_all: bool
    """Whether there are none up to the bound on moves; False when the bound on trials came first."""


def relieve(
    ask: Ask,
    nodes: Nodes,
    residents: Sequence[Resident],
    allowed: Mapping[str, int],
    *,
    most: int = MOST_MOVES,
    trials: int = TRIALS,
) -> Steps[Relief | NoRelief]:
    """The fewest moves that let `ask` fit. Each step is one trial.

    `allowed` says how many pods each budget may lose; one that is not there may lose none.
    """
    search = _Search(ask, nodes, residents, allowed, trials)
    fields = yield from search.fields()
    for count in range(1, most + 1):
        for field in fields:
            if field.least > count:
                break  # those that follow need as many
            found = yield from search.on(field, count)
            if found is not None:
                return found
            if search.left <= 0:
                return NoRelief(searched_all=False)
    return NoRelief(searched_all=True)


class _Field(Struct, frozen=True):
    """A node where it might work, and a bound below which it certainly does not."""

    node: NodeState
    movable: tuple[Resident, ...]
    least: int
    on_card: Mapping[CardId, int]
    """For an ask of one container: cards that could serve, and how many pods at least must leave each."""


class _Search:
    def __init__(
        self, ask: Ask, nodes: Nodes, residents: Sequence[Resident], allowed: Mapping[str, int], trials: int
    ) -> None:
        self.left = trials
        self._ask = ask
        self._nodes = nodes
        self._allowed = allowed
        self._residents: dict[NodeName, list[Resident]] = {}
        for one in residents:
            if not one.fixed and one.charges and all(allowed.get(name, 0) > 0 for name in one.budgets):
                self._residents.setdefault(one.node, []).append(one)
        self._targets = sorted(
            (node for node in nodes.values() if node.problem is None),
            key=lambda node: (-score.node(node.cards), node.name),
        )
        """The fullest first: what moves should not break into what is still whole."""

    def fields(self) -> Steps[list[_Field]]:
        """Nodes where the ask would fit if everybody who can leave did, the most promising first."""
        found = []
        for name, movable in self._residents.items():
            node = self._nodes.get(name)
            if node is None or node.problem is not None:
                continue
            yield
            free = node
            for one in movable:
                free = free.bearing(one.charges, -1)
            if not self._fits(free):
                continue
            on_card = self._on_card(node, movable)
            found.append(_Field(node, tuple(movable), self._least(node, on_card, movable), on_card))
        return sorted(found, key=lambda field: (field.least, field.node.name))

    def _least(self, node: NodeState, on_card: Mapping[CardId, int], movable: Sequence[Resident]) -> int:
        """Not below 1: the ask does not fit as things are. Each card of the ask has to be left by some, and who leaves
        leaves no more cards than he is on."""
        if node.mig or not on_card:  # a card in MIG mode can serve an ask for several
            return 1
        lowest = sorted(on_card.values())[: wants(self._ask)[0].ask.cards]
        most_cards = max(len(one.charges) for one in movable)
        return max(1, lowest[-1], -(-sum(lowest) // most_cards))

    def on(self, field: _Field, count: int) -> Steps[Relief | None]:
        """Exactly `count` moves away from one node."""
        seen: set[frozenset[PodUid]] = set()
        for group in self._pools(field, count):
            for leaving in combinations(group, count):
                key = frozenset(one.pod.uid for one in leaving)
                if key in seen or not self._may_leave(leaving):
                    continue
                seen.add(key)
                if self.left <= 0:
                    return None
                yield
                node = field.node
                for one in leaving:
                    node = node.bearing(one.charges, -1)
                self.left -= 1
                plan = fit(self._ask, node)
                if isinstance(plan, Plan):
                    moves = yield from self._rehouse(plan, node, leaving)
                    if moves is not None:
                        return Relief(plan, moves)
        return None

    def _pools(self, field: _Field, count: int) -> Iterator[list[Resident]]:
        """Who might leave: those on one choice of cards, where the ask is of one container."""
        want = wants(self._ask)
        if len(want) != 1:
            yield list(field.movable)
            return
        cheap = sorted(card for card, least in field.on_card.items() if least <= count)
        for chosen in combinations(cheap, min(want[0].ask.cards, len(cheap))):
            yield [one for one in field.movable if not {charge.card for charge in one.charges}.isdisjoint(chosen)]

    def _on_card(self, node: NodeState, movable: Sequence[Resident]) -> dict[CardId, int]:
        want = wants(self._ask)
        if len(want) != 1:
            return {}
        asked = want[0].ask
        found = {}
        for state in node.of(asked.family):
            if standing(asked.rules, state) is None:
                loads = [charge for one in movable for charge in one.charges if charge.card == state.card.id]
                least = _fewest(asked, state, loads)
                if least is not None:
                    found[state.card.id] = least
        return found

    def _may_leave(self, leaving: Sequence[Resident]) -> bool:
        taken = Counter(budget for one in leaving for budget in one.budgets)
        return all(count <= self._allowed[budget] for budget, count in taken.items())

    def _rehouse(self, plan: Plan, freed: NodeState, leaving: Sequence[Resident]) -> Steps[tuple[Move, ...] | None]:
        """Places for all who leave, with the ask in its own; the largest first, every choice tried up to the bound."""
        changed = {plan.node: freed.bearing(plan.charges)}
        ordered = sorted(leaving, key=lambda one: (-sum(charge.mem_mib for charge in one.charges), one.pod.uid))
        for order in permutations(ordered):  # who comes first leaves other cards to the next
            moves = yield from self._placed(plan, order, changed)
            if moves is not None:
                # Who goes to another card of the same node goes last: others may have left it first.
                return tuple(sorted(moves, key=lambda move: move.plan.node == move.source))
        return None

    def _placed(
        self, plan: Plan, waiting: Sequence[Resident], changed: dict[NodeName, NodeState]
    ) -> Steps[tuple[Move, ...] | None]:
        if not waiting:
            # A pod may go back to where it was, beside the ask; it must not shut the door that it opened.
            return () if self._fits(changed[plan.node].bearing(plan.charges, -1)) else None
        first, *rest = waiting
        for node in self._targets:
            if self.left <= 0:
                return None
            state = changed.get(node.name, node)
            if not _roomy(first.ask, state):
                continue
            self.left -= 1
            yield
            there = fit(first.ask, state)
            if isinstance(there, Plan):
                after = {**changed, node.name: state.bearing(there.charges)}
                others = yield from self._placed(plan, rest, after)
                if others is not None:
                    return (Move(first.pod, first.node, there), *others)
        return None

    def _fits(self, node: NodeState) -> bool:
        self.left -= 1
        return fits(self._ask, node)


def _fewest(ask: CardAsk, state: CardState, loads: Sequence[Charge]) -> int | None:
    """A lower bound on the pods that must leave this card before it accepts; None where all leaving is not enough."""
    if ask.core_percent == WHOLE == state.card.core_percent and state.used_slots:
        return len(loads) if sum(one.slots for one in loads) >= state.used_slots else None
    lacks = (
        (1 - state.free_slots, [one.slots for one in loads]),
        (ask.mem_on(state.card.mem_mib) - state.free_mem_mib, [one.mem_mib for one in loads]),
        (max(ask.core_percent, 1 if state.card.core_percent else 0) - state.free_core_percent,
         [one.core_percent for one in loads]),
    )  # fmt: skip
    counts = [_largest_first(lack, given) for lack, given in lacks]
    return None if None in counts else max(count for count in counts if count is not None)


def _largest_first(lack: int, given: Sequence[int]) -> int | None:
    count = 0
    for amount in sorted(given, reverse=True):
        if lack <= 0:
            break
        lack -= amount
        count += 1
    return count if lack <= 0 else None


def _roomy(ask: Ask, node: NodeState) -> bool:
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


def elsewhere(resident: Resident, nodes: Iterable[NodeState]) -> Steps[NodeName | None]:
    """Another node that would take the pod now."""
    for node in nodes:
        if node.name == resident.node or node.problem is not None or not _roomy(resident.ask, node):
            continue
        yield
        if fits(resident.ask, node):
            return node.name
    return None
