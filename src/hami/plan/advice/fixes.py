"""The changes after which an ask fits on a node, each tried: with it, and nothing else, the ask fits.

What the asker can do (ask less, accept other cards), then what others can (uncordon a card, move a pod).
"""

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from hami.model.ask import Ask, CardRules, PodRef
from hami.model.ids import CardId, NodeName
from hami.model.plan import Charge
from hami.plan.advice.changes import (
    Cap,
    accepting,
    capped,
    each,
    largest,
    with_cards,
    with_cores,
    with_memory,
    with_percent,
)
from hami.plan.exact.fit import fits
from hami.plan.exact.preempt import Holder
from hami.plan.exact.rules import WHOLE, kind_accepted
from hami.plan.exact.wants import wants
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps


class Change(Enum):
    """What one would have to do."""

    LESS_MEMORY = "ask less memory"
    LESS_CORES = "ask fewer cores"
    LESS_OF_BOTH = "ask less memory and fewer cores"
    FEWER_CARDS = "ask fewer cards"
    OTHER_TYPE = "accept another type"
    NO_RULES = "drop the type, uuid and mode rules"
    ANY_NUMA = "drop the NUMA binding"
    UNCORDON = "uncordon a card"
    MOVE_POD = "move a pod away"
    END_POD = "end a pod"


class Fix(Struct, frozen=True, omit_defaults=True):
    """One change after which the ask fits."""

    change: Change
    text: str
    """For a person: ``ask at most 6000 MiB a card``."""
    value: int | None = None
    """The most that fits, where the change is of a quantity; of memory, where it is of two."""
    card: CardId | None = None
    pod: PodRef | None = None
    model: str | None = None
    """The type to accept."""
    cores: int | None = None
    """The most percent that fits, where memory and cores must change together."""
    effort: float = 0.0
    """How much of a change it is, for comparison: see `EFFORT`."""
    node: NodeName | None = None
    """Where it then fits; set where several nodes are compared."""

    def __lt__(self, other: "Fix") -> bool:
        return self.rank < other.rank

    @property
    def rank(self) -> tuple[float, int, str]:
        """The nearest fix is the one with the lowest."""
        return self.effort, _ORDER[self.change], self.text


EFFORT = {
    Change.OTHER_TYPE: 0.5,
    Change.ANY_NUMA: 0.5,
    Change.NO_RULES: 0.75,
    Change.UNCORDON: 1.0,
    Change.MOVE_POD: 1.0,
    Change.END_POD: 2.0,
}
"""Of a smaller quantity it is the share that is given up, 0 to 1, and the sum of shares where it is two. So what
costs the asker little comes first, what somebody else must do comes later. A pod to be moved or ended adds
the largest share of a card that it holds."""

_ORDER = {change: place for place, change in enumerate(Change)}


def fixes(ask: Ask, node: NodeState, holders: Sequence[Holder] = ()) -> Steps[list[Fix]]:
    """Changes that make `ask` fit on `node`, the nearest first. Each step is one trial."""
    found = yield from _less(ask, node)
    found += yield from _freer(ask, node)
    found += yield from _uncordon(ask, node)
    found += yield from _move(ask, node, holders)
    return sorted(found)


def _less(ask: Ask, node: NodeState) -> Steps[list[Fix]]:
    """The same, only smaller: the most of each quantity that fits, the others as they are."""
    mem_asked = largest(ask, lambda one: one.mem_mib or 0)
    percent_asked = largest(ask, lambda one: one.mem_percent or 0)
    cores_asked = largest(ask, lambda one: one.core_percent)
    cards_asked = largest(ask, lambda one: one.cards)
    found: list[Fix] = []
    mem = yield from _most(mem_asked, ask, node, with_memory)
    if mem is not None:
        found.append(_smaller(Change.LESS_MEMORY, f"ask at most {mem} MiB a card", mem, mem_asked))
    percent = yield from _most(percent_asked, ask, node, with_percent)
    if percent is not None:
        text = f"ask at most {percent} % of a card's memory"
        found.append(_smaller(Change.LESS_MEMORY, text, percent, percent_asked))
    cores = yield from _most(cores_asked, ask, node, with_cores)
    if cores is not None:
        found.append(_smaller(Change.LESS_CORES, f"ask at most {cores} % of a card's cores", cores, cores_asked))
    if not found:
        found = yield from _less_of_both(ask, node)
    cards = yield from _most(cards_asked, ask, node, with_cards)
    if cards is not None:
        text = f"ask at most {cards} card{'s' if cards > 1 else ''}"
        found.append(_smaller(Change.FEWER_CARDS, text, cards, cards_asked))
    return found


def _less_of_both(ask: Ask, node: NodeState) -> Steps[list[Fix]]:
    """Where neither memory nor cores alone helps: for each amount of cores that some card has, the most memory. The
    nearest of all."""
    asked = largest(ask, lambda one: one.core_percent)
    mem_asked = largest(ask, lambda one: one.mem_mib or 0)
    percent_asked = largest(ask, lambda one: one.mem_percent or 0)
    found: list[Fix] = []
    levels = {state.free_core_percent for state in node.cards} | ({WHOLE - 1} if asked == WHOLE else set())
    for cores in sorted((level for level in levels if 0 < level < asked), reverse=True):
        fewer = capped(ask, with_cores, cores)
        for whole, cap, unit in ((mem_asked, with_memory, "MiB"), (percent_asked, with_percent, "% of its memory")):
            most = yield from _most(whole, fewer, node, cap)
            if most is None:
                continue
            effort = (1 - most / whole) + (1 - cores / asked)
            text = f"ask at most {most} {unit} and {cores} % of the cores a card"
            found.append(Fix(Change.LESS_OF_BOTH, text, most, cores=cores, effort=effort))
    return sorted(found)[:1]


def _freer(ask: Ask, node: NodeState) -> Steps[list[Fix]]:
    """The same, only with fewer rules on the cards."""
    rules = [want.ask.rules for want in wants(ask)]
    found: list[Fix] = []
    if any(one.numa_bind for one in rules):
        yield
        if fits(each(ask, lambda one: replace(one, rules=replace(one.rules, numa_bind=False))), node):
            found.append(Fix(Change.ANY_NUMA, "drop the NUMA binding", effort=EFFORT[Change.ANY_NUMA]))
    for model in dict.fromkeys(state.card.model for state in node.cards):
        if all(kind_accepted(one, model, one.modes[0] if one.modes else "") for one in rules):
            continue
        yield
        if fits(accepting(ask, model), node):
            text = f"accept cards of type {model}"
            found.append(Fix(Change.OTHER_TYPE, text, model=model, effort=EFFORT[Change.OTHER_TYPE]))
            return found
    free = each(ask, lambda one: replace(one, rules=CardRules(numa_bind=one.rules.numa_bind)))
    yield
    if free != ask and fits(free, node):
        text = "drop the rules on card types, uuids and modes"
        found.append(Fix(Change.NO_RULES, text, effort=EFFORT[Change.NO_RULES]))
    return found


def _uncordon(ask: Ask, node: NodeState) -> Steps[list[Fix]]:
    found: list[Fix] = []
    for state in node.cards:
        if state.cordoned:
            yield
            if fits(ask, _uncordoned(node, state)):
                text = f"uncordon card {state.card.id}"
                found.append(Fix(Change.UNCORDON, text, card=state.card.id, effort=EFFORT[Change.UNCORDON]))
    return found


def _move(ask: Ask, node: NodeState, holders: Sequence[Holder]) -> Steps[list[Fix]]:
    found: list[Fix] = []
    for holder in holders:
        yield
        if fits(ask, node.without(holder.charges)):
            text = f"move pod {holder.pod} to another node"
            effort = EFFORT[Change.MOVE_POD] + share_of(holder.charges, node)
            found.append(Fix(Change.MOVE_POD, text, pod=holder.pod, effort=effort))
    return found


def share_of(charges: Sequence[Charge], node: NodeState) -> float:
    """The largest share, 0 to 1, of memory or cores that these charges take of one card of the node."""
    cards = {state.card.id: state.card for state in node.cards}
    shares = [0.0]
    for charge in charges:
        own = cards.get(charge.card)
        if own is not None:
            shares.append(charge.mem_mib / own.mem_mib if own.mem_mib else 0.0)
            shares.append(charge.core_percent / own.core_percent if own.core_percent else 0.0)
    return min(1.0, max(shares))


def _most(asked: int, ask: Ask, node: NodeState, cap: Cap) -> Steps[int | None]:
    """The largest cap, at least 1 and below `asked`, with which it fits. Less never fits worse, so halving finds it."""
    low, high = 1, asked - 1
    yield
    if high < low or not fits(capped(ask, cap, low), node):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        yield
        if fits(capped(ask, cap, middle), node):
            low = middle
        else:
            high = middle - 1
    return low


def _smaller(change: Change, text: str, value: int, asked: int) -> Fix:
    return Fix(change, text, value, effort=1 - value / asked)


def _uncordoned(node: NodeState, card: CardState) -> NodeState:
    return replace(node, cards=tuple(replace(one, cordoned=False) if one is card else one for one in node.cards))
