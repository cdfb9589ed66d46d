"""Why an ask fits where it does, as a value: per node and card the reason, and the nearest change that helps.

The same rules and the same `fit` as the decision itself, so it never tells another story.
Every fix was tried: with that one change, and nothing else, the ask fits on the node.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk, CardRules, PodRef
from hami.model.ids import CardId, NodeName
from hami.model.plan import Plan
from hami.model.refusal import Reason
from hami.plan import score
from hami.plan.fit import fit, wants
from hami.plan.policies import chain
from hami.plan.preempt import Holder
from hami.plan.rules import refuse
from hami.plan.snapshot import CardState, NodeState


class CardVerdict(Struct, frozen=True, omit_defaults=True):
    """One card and one container, as if the container were alone in its pod."""

    card: CardId
    container: str
    score: float | None = None
    """How full the card would be (`plan.score.card`); None where it is refused."""
    reason: Reason | None = None
    needed: int | None = None
    """MiB, percent or slots, where the reason is a quantity."""
    had: int | None = None


class Change(Enum):
    """What one would have to do."""

    LESS_MEMORY = "ask less memory"
    LESS_CORES = "ask fewer cores"
    FEWER_CARDS = "ask fewer cards"
    NO_RULES = "drop the type, uuid and mode rules"
    ANY_NUMA = "drop the NUMA binding"
    UNCORDON = "uncordon a card"
    MOVE_POD = "move a pod away"


class Fix(Struct, frozen=True, omit_defaults=True):
    """One change after which the ask fits."""

    change: Change
    text: str
    """For a person: ``ask at most 6000 MiB a card``."""
    value: int | None = None
    """The most that fits, where the change is of a quantity."""
    card: CardId | None = None
    pod: PodRef | None = None


class Explanation(Struct, frozen=True, omit_defaults=True):
    """One node and one ask."""

    node: NodeName
    score: float
    """How full the node is (`plan.score.node`)."""
    cards: tuple[CardVerdict, ...]
    plan: Plan | None = None
    refusal: str | None = None
    """The text that `FailedNodes` and events carry."""
    fixes: tuple[Fix, ...] = ()
    """Empty where the ask fits, or where no single change helps."""


def explain(ask: Ask, node: NodeState, holders: Sequence[Holder] = ()) -> Explanation:
    """`ask` on `node`. `holders` are the pods there that may be named as ones to move."""
    result = fit(ask, node)
    return Explanation(
        node=node.name,
        score=score.node(node.cards),
        cards=tuple(_verdicts(ask, node)),
        plan=result if isinstance(result, Plan) else None,
        refusal=None if isinstance(result, Plan) else result.text,
        fixes=() if isinstance(result, Plan) or node.problem else tuple(fixes(ask, node, holders)),
    )


def fixes(ask: Ask, node: NodeState, holders: Sequence[Holder] = ()) -> Iterator[Fix]:
    """Single changes that make `ask` fit on `node`, those of the asker first."""
    yield from _less(ask, node)
    yield from _freer(ask, node)
    for state in node.cards:
        if state.cordoned and _fits(ask, _uncordoned(node, state)):
            yield Fix(Change.UNCORDON, f"uncordon card {state.card.id}", card=state.card.id)
    for holder in holders:
        if _fits(ask, node.bearing(holder.charges, -1)):
            yield Fix(Change.MOVE_POD, f"move pod {holder.pod} to another node", pod=holder.pod)


def _verdicts(ask: Ask, node: NodeState) -> Iterator[CardVerdict]:
    idle_only = chain(ask.card_policy).idle_only
    for want in wants(ask):
        name = ask.containers[want.container].name
        for state in node.of(want.ask.family):
            refusal = refuse(want.ask, state, idle_only)
            if refusal is None:
                full = score.card(state.card, state.use, want.ask, ask.weights)
                yield CardVerdict(state.card.id, name, score=full)
            else:
                yield CardVerdict(state.card.id, name, None, refusal.reason, refusal.needed, refusal.had)


def _less(ask: Ask, node: NodeState) -> Iterator[Fix]:
    """The same, only smaller: the most of each quantity that fits, the others as they are."""
    asks = [want.ask for want in wants(ask)]
    mem = _most(max((one.mem_mib or 0 for one in asks), default=0), ask, node, _with_memory)
    if mem is not None:
        yield Fix(Change.LESS_MEMORY, f"ask at most {mem} MiB a card", mem)
    percent = _most(max((one.mem_percent or 0 for one in asks), default=0), ask, node, _with_percent)
    if percent is not None:
        yield Fix(Change.LESS_MEMORY, f"ask at most {percent} % of a card's memory", percent)
    cores = _most(max((one.core_percent for one in asks), default=0), ask, node, _with_cores)
    if cores is not None:
        yield Fix(Change.LESS_CORES, f"ask at most {cores} % of a card's cores", cores)
    cards = _most(max((one.cards for one in asks), default=0), ask, node, _with_cards)
    if cards is not None:
        yield Fix(Change.FEWER_CARDS, f"ask at most {cards} card{'s' if cards > 1 else ''}", cards)


def _freer(ask: Ask, node: NodeState) -> Iterator[Fix]:
    if any(one.ask.rules.numa_bind for one in wants(ask)):
        unbound = _each(ask, lambda one: replace(one, rules=replace(one.rules, numa_bind=False)))
        if _fits(unbound, node):
            yield Fix(Change.ANY_NUMA, "drop the NUMA binding")
            return
    free = _each(ask, lambda one: replace(one, rules=CardRules(numa_bind=one.rules.numa_bind)))
    if free != ask and _fits(free, node):
        yield Fix(Change.NO_RULES, "drop the rules on card types, uuids and modes")


def _most(asked: int, ask: Ask, node: NodeState, cap: Callable[[CardAsk, int], CardAsk]) -> int | None:
    """The largest cap, at least 1 and below `asked`, with which it fits. Less never fits worse, so halving finds it."""
    low, high = 1, asked - 1
    if high < low or not _fits(_each(ask, lambda one: cap(one, low)), node):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(_each(ask, lambda one, most=middle: cap(one, most)), node):  # type: ignore[misc]
            low = middle
        else:
            high = middle - 1
    return low


def _with_memory(ask: CardAsk, most: int) -> CardAsk:
    return ask if ask.mem_mib is None else replace(ask, mem_mib=min(ask.mem_mib, most))


def _with_percent(ask: CardAsk, most: int) -> CardAsk:
    return ask if ask.mem_percent is None else replace(ask, mem_percent=min(ask.mem_percent, most))


def _with_cores(ask: CardAsk, most: int) -> CardAsk:
    return replace(ask, core_percent=min(ask.core_percent, most))


def _with_cards(ask: CardAsk, most: int) -> CardAsk:
    return replace(ask, cards=min(ask.cards, most))


def _each(ask: Ask, change: Callable[[CardAsk], CardAsk]) -> Ask:
    """`ask` with every container's share changed."""
    return replace(
        ask, containers=tuple(replace(one, cards=tuple(change(cards) for cards in one.cards)) for one in ask.containers)
    )


def _uncordoned(node: NodeState, card: CardState) -> NodeState:
    return replace(node, cards=tuple(replace(one, cordoned=False) if one is card else one for one in node.cards))


def _fits(ask: Ask, node: NodeState) -> bool:
    return isinstance(fit(ask, node), Plan)
