"""How many pods must leave a node, at least, before an ask fits there: bounds that spare most of a search for moves."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from msgspec import Struct

from hami.model.ask import Ask, CardAsk
from hami.model.ids import CardId
from hami.model.plan import Charge
from hami.plan.advice.residents import Resident
from hami.plan.exact.rules import WHOLE, standing
from hami.plan.exact.wants import wants
from hami.plan.snapshot import CardState, NodeState


class Field(Struct, frozen=True):
    """A node where it might work, and a bound below which it certainly does not."""

    node: NodeState
    movable: tuple[Resident, ...]
    least: int
    """Pods that have to leave, 1 or more."""
    cards: int
    """What the ask's one container asks; 0 for an ask of several."""
    on_card: Mapping[CardId, int]
    """For an ask of one container: cards that could serve, and how many pods at least must leave each."""

    def pools(self, count: int) -> Iterator[Sequence[Resident]]:
        """Who might be among `count` that leave: those on one choice of cards, where the ask is of one container."""
        if not self.cards:
            yield self.movable
            return
        cheap = sorted(card for card, least in self.on_card.items() if least <= count)
        for chosen in combinations(cheap, min(self.cards, len(cheap))):
            yield [one for one in self.movable if not {charge.card for charge in one.charges}.isdisjoint(chosen)]


def field(ask: Ask, node: NodeState, movable: Sequence[Resident]) -> Field:
    """A node on which `ask` would fit if all who may leave did, and does not as things are."""
    want = wants(ask)
    if len(want) != 1:
        return Field(node, tuple(movable), 1, 0, {})
    asked = want[0].ask
    on_card = _on_card(asked, node, movable)
    return Field(node, tuple(movable), _least(asked, node, on_card, movable), asked.cards, on_card)


def _on_card(asked: CardAsk, node: NodeState, movable: Sequence[Resident]) -> dict[CardId, int]:
    found = {}
    for state in node.of(asked.family):
        if standing(asked.rules, state) is None:
            loads = [charge for one in movable for charge in one.charges if charge.card == state.card.id]
            least = fewest(asked, state, loads)
            if least is not None:
                found[state.card.id] = least
    return found


def _least(asked: CardAsk, node: NodeState, on_card: Mapping[CardId, int], movable: Sequence[Resident]) -> int:
    """Each card of the ask has to be left by some, and who leaves leaves no more cards than he is on."""
    if node.mig or not on_card:  # a card in MIG mode can serve an ask for several
        return 1
    lowest = sorted(on_card.values())[: asked.cards]
    most_cards = max(len(one.charges) for one in movable)
    return max(1, lowest[-1], -(-sum(lowest) // most_cards))


def fewest(ask: CardAsk, state: CardState, loads: Sequence[Charge]) -> int | None:
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
