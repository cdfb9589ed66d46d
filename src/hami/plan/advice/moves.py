"""The fewest pods to move so that an ask fits on some node: a suggestion, nothing is moved here.

Only pods on the cards where the ask would go are moved (never one to make room for another), each to a place that
was planned for it, in the state that the moves before it leave. No disruption budget is overdrawn. The search is
exact up to a bound on trials, and says whether it reached it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations

from msgspec import Struct

from hami.model.ask import Ask, PodRef
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.plan.advice.leaving import Field, field
from hami.plan.advice.residents import Resident, roomy
from hami.plan.exact import score
from hami.plan.exact.fit import fit, fits
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps

MOST_MOVES = 4
TRIALS = 20_000
"""Exact looks at one node. About two seconds of one processor."""

Nodes = Mapping[NodeName, NodeState]


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
            world[move.source] = world[move.source].without(charges[move.pod.uid])
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
        for place in fields:
            if place.least > count:
                break  # those that follow need as many
            found = yield from search.on(place, count)
            if found is not None:
                return found
            if search.left <= 0:
                return NoRelief(searched_all=False)
    return NoRelief(searched_all=True)


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

    def fields(self) -> Steps[list[Field]]:
        """Nodes where the ask would fit if everybody who can leave did, the most promising first."""
        found = []
        for name, movable in self._residents.items():
            node = self._nodes.get(name)
            if node is None or node.problem is not None:
                continue
            yield
            free = node
            for one in movable:
                free = free.without(one.charges)
            if not self._fits(free):
                continue
            found.append(field(self._ask, node, movable))
        return sorted(found, key=lambda one: (one.least, one.node.name))

    def on(self, place: Field, count: int) -> Steps[Relief | None]:
        """Exactly `count` moves away from one node."""
        seen: set[frozenset[PodUid]] = set()
        for group in place.pools(count):
            for leaving in combinations(group, count):
                key = frozenset(one.pod.uid for one in leaving)
                if key in seen or not self._may_leave(leaving):
                    continue
                seen.add(key)
                if self.left <= 0:
                    return None
                yield
                node = place.node
                for one in leaving:
                    node = node.without(one.charges)
                self.left -= 1
                plan = fit(self._ask, node)
                if isinstance(plan, Plan):
                    moves = yield from self._rehouse(plan, node, leaving)
                    if moves is not None:
                        return Relief(plan, moves)
        return None

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
            return () if self._fits(changed[plan.node].without(plan.charges)) else None
        first, *rest = waiting
        for node in self._targets:
            if self.left <= 0:
                return None
            state = changed.get(node.name, node)
            if not roomy(first.ask, state):
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
