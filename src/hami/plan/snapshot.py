"""Nodes and cards as a decision sees them: values that never change once made.

The ledger replaces a `NodeState` whenever something on the node changes, so a
snapshot is just a reference, and a what-if is one more value.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from hami.model.card import MIG, Card, Instance
from hami.model.ids import CardId, Family, NodeName
from hami.model.plan import Charge

Use = tuple[int, int, int]
"""Of one card: slots, MiB and core percent taken."""

Links = Mapping[CardId, Mapping[CardId, int]]
"""What the links between two cards of a node are worth; a pair that is not there is worth 0."""


class CardState(Struct, frozen=True):
    """A card and what is taken of it. Taken may exceed capacity: a card can shrink under its pods."""

    card: Card
    used_slots: int = 0
    used_mem_mib: int = 0
    used_core_percent: int = 0
    cordoned: bool = False
    instances: tuple[Instance, ...] = ()
    """MIG instances that are taken, sorted."""

    @property
    def sound(self) -> bool:
        """Whether what is known of who holds what makes sense: on a card in MIG mode every slice has a place
        of its own, on another card none has. Else nothing more may be put there."""
        if self.card.mode != MIG:
            return not self.instances
        placed = sorted(self.instances, key=_start)
        apart = all(one.start + one.size <= two.start for one, two in pairwise(placed))
        return apart and self.used_slots == len(self.instances)

    @property
    def overfull(self) -> bool:
        """Whether more is taken than there is."""
        return min(self.free_slots, self.free_mem_mib, self.free_core_percent) < 0

    @property
    def use(self) -> Use:
        return self.used_slots, self.used_mem_mib, self.used_core_percent

    @property
    def free_slots(self) -> int:
        return self.card.slots - self.used_slots

    @property
    def free_mem_mib(self) -> int:
        return self.card.mem_mib - self.used_mem_mib

    @property
    def free_core_percent(self) -> int:
        return self.card.core_percent - self.used_core_percent

    def bearing(self, charge: Charge) -> "CardState":
        """This card with `charge` on it too."""
        instances = tuple(sorted((*self.instances, *charge.instances))) if charge.instances else self.instances
        return self._used(charge, 1, instances)

    def without(self, charge: Charge) -> "CardState":
        """This card with `charge` gone from it."""
        if not charge.instances:
            return self._used(charge, -1, self.instances)
        left = list(self.instances)
        for one in charge.instances:
            left.remove(one)
        return self._used(charge, -1, tuple(left))

    def _used(self, charge: Charge, times: int, instances: tuple[Instance, ...]) -> "CardState":
        return CardState(
            self.card,
            self.used_slots + times * charge.slots,
            self.used_mem_mib + times * charge.mem_mib,
            self.used_core_percent + times * charge.core_percent,
            self.cordoned,
            instances,
        )


def _start(one: Instance) -> int:
    return one.start


class NodeState(Struct, frozen=True):
    """A registered node. `problem` says in words why nothing may be placed there now."""

    name: NodeName
    generation: int
    """Moves whenever anything else in here does."""
    cards: tuple[CardState, ...] = ()
    problem: str | None = None
    links: Links = {}

    @property
    def mig(self) -> bool:
        """Whether a card is in MIG mode: then how full cards are does not tell what still fits."""
        return any(state.card.mode == MIG for state in self.cards)

    def of(self, family: Family) -> tuple[CardState, ...]:
        """The cards of one family."""
        return tuple(state for state in self.cards if state.card.family == family)

    def bearing(self, charges: Iterable[Charge]) -> "NodeState":
        """This node with `charges` on its cards too; a charge on a card it lacks is left out."""
        return self._each(charges, CardState.bearing)

    def without(self, charges: Iterable[Charge]) -> "NodeState":
        """This node with `charges` gone from its cards."""
        return self._each(charges, CardState.without)

    def _each(self, charges: Iterable[Charge], change: Callable[[CardState, Charge], CardState]) -> "NodeState":
        by_card = {charge.card: charge for charge in charges}
        cards = tuple(
            change(state, by_card[state.card.id]) if state.card.id in by_card else state for state in self.cards
        )
        return replace(self, cards=cards)
