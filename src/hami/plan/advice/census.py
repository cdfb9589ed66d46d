"""Nodes and cards that are alike, counted: what differs only in names is looked at once.

Two cards are alike if they are the same but for id and index, two nodes if their cards are alike one by one.
Nodes on which nothing may be placed are left out. Pure; changes nothing.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from hami.plan.advice.typical import A_STEP
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps


class Alike(Struct, frozen=True):
    """One node for all that are like it."""

    node: NodeState
    kinds: tuple[int, ...]
    """Of its cards, in their order: places in `Census.cards`."""
    count: int


class Census(Struct, frozen=True):
    cards: tuple[CardState, ...]
    """One card of each kind."""
    counts: tuple[int, ...]
    """How many of each there are."""
    nodes: tuple[Alike, ...]
    """In the order in which the first of each came."""

    def counted(self, nodes: Iterable[Alike]) -> tuple[int, ...]:
        """How many cards of each kind are on some of the nodes."""
        counts = [0] * len(self.cards)
        for alike in nodes:
            for kind in alike.kinds:
                counts[kind] += alike.count
        return tuple(counts)


def census(nodes: Sequence[NodeState], *, each: bool = False) -> Steps[Census]:
    """Count, some nodes a step. With `each` no two cards are alike: for asks to which their ids or links matter."""
    kinds: dict[object, int] = {}
    cards: list[CardState] = []
    found: dict[object, tuple[NodeState, tuple[int, ...]]] = {}
    times: dict[object, int] = {}
    for number, node in enumerate(nodes):
        if number % A_STEP == 0:
            yield
        if node.problem is not None:
            continue
        own = []
        for state in node.cards:
            key = (node.name, state.card.id) if each else _kind(state)
            kind = kinds.get(key)
            if kind is None:
                kind = kinds[key] = len(cards)
                cards.append(state)
            own.append(kind)
        same: object = node.name if each else tuple(own)
        if same not in found:
            found[same] = (node, tuple(own))
        times[same] = times.get(same, 0) + 1
    alike = tuple(Alike(node, own, times[same]) for same, (node, own) in found.items())
    whole = Census(tuple(cards), (), alike)
    return Census(whole.cards, whole.counted(alike), alike)


def _kind(state: CardState) -> tuple[object, ...]:
    card = state.card
    return (
        card.family, card.model, card.slots, card.mem_mib, card.core_percent, card.numa, card.mode, card.healthy,
        card.mig_profiles, state.used_slots, state.used_mem_mib, state.used_core_percent, state.cordoned,
        state.instances,
    )  # fmt: skip
