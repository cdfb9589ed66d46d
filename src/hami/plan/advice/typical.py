"""What is typically asked: the shapes of the pods that were seen, and a whole card, half and quarter of each family.

A shape is what a pod asks without its name: containers of one kind with the same cards. Pure; changes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.ids import Family, PodUid
from hami.plan.snapshot import NodeState
from hami.plan.steps import Steps, finish
from hami.plan.words import spoken

LEARNED = 8
"""Typical asks that are learned: the most frequent ones."""
A_STEP = 50
"""Asks, nodes or cards looked at in one step: some hundred microseconds."""


class Typical(Struct, frozen=True):
    """An ask as it is made here. `ask.pod` means nothing."""

    name: str
    """For a person: ``1 x 8000 MiB, 30 %``."""
    ask: Ask
    seen: int
    """Pods that asked it; 0 for the whole card, the half and the quarter that are always looked at."""


def learn(asks: Iterable[Ask], nodes: Iterable[NodeState]) -> list[Typical]:
    """The most frequent shapes among `asks`, then a whole card, half and quarter of each family there is."""
    return finish(learning(asks, nodes))


def learning(asks: Iterable[Ask], nodes: Iterable[NodeState]) -> Steps[list[Typical]]:
    """`learn`, some asks a step."""
    shapes: Counter[tuple[ContainerAsk, ...]] = Counter()
    policies: dict[tuple[ContainerAsk, ...], Ask] = {}
    for number, ask in enumerate(asks):
        if number % A_STEP == 0:
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
    families: set[Family] = set()
    for number, node in enumerate(nodes):
        if number % A_STEP == 0:
            yield
        families.update(state.card.family for state in node.cards)
    return found + [part for part in standard(sorted(families)) if part.ask.containers not in known]


def standard(families: Sequence[Family]) -> list[Typical]:
    """What is always looked at."""
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
