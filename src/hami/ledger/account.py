"""One node's account: its register, who holds what there, and the state that follows from both.

`state()` is the definition; the ledger keeps what follows up to date without going through all holders.
"""

from collections.abc import Iterable

from hami.ledger.records import NodeRecord
from hami.model.card import Instance
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Charge
from hami.plan.snapshot import CardState, NodeState

Charges = tuple[Charge, ...]

_Load = tuple[int, int, int]
"""Slots, MiB, percent."""

_NOTHING: _Load = (0, 0, 0)


class Account:
    """Outlives its node's register while pods are bound there: they are charged again when it returns."""

    __slots__ = ("holders", "name", "record", "troubles")

    def __init__(self, name: NodeName) -> None:
        self.name = name
        self.record: NodeRecord | None = None
        self.holders: dict[PodUid, Charges] = {}
        """What each pod takes here, bound or reserved; charges on unknown cards wait here for their card."""
        self.troubles: dict[PodUid, str] = {}
        """Pods whose record cannot be read, and why."""

    @property
    def idle(self) -> bool:
        """Whether nobody needs this account any more."""
        return self.record is None and not self.holders and not self.troubles

    @property
    def problem(self) -> str | None:
        """Why nothing may be placed here; the node's own reason first."""
        if self.record is not None and self.record.problem is not None:
            return self.record.problem
        doubled = self._doubled()
        if doubled is not None:
            return f"card {doubled} is registered twice on the node"
        return self.troubles[min(self.troubles)] if self.troubles else None

    def state(self, generation: int) -> NodeState | None:
        """The node from its records alone; None while it is not registered."""
        if self.record is None:
            return None
        cards = sorted(self.record.cards, key=lambda card: (card.index, card.id))
        empty = tuple(CardState(card, cordoned=card.id in self.record.cordoned) for card in cards)
        return NodeState(self.name, generation, _bearing(empty, self.holders.values()), self.problem, self.record.links)

    def _doubled(self) -> CardId | None:
        seen: set[CardId] = set()
        for card in self.record.cards if self.record else ():
            if card.id in seen:
                return card.id
            seen.add(card.id)
        return None


def _bearing(cards: tuple[CardState, ...], holders: Iterable[Charges]) -> tuple[CardState, ...]:
    totals: dict[CardId, _Load] = {}
    instances: dict[CardId, list[Instance]] = {}
    for charges in holders:
        _add(totals, charges)
        for one in charges:
            if one.instances:
                instances.setdefault(one.card, []).extend(one.instances)
    return tuple(
        CardState(
            state.card,
            *totals.get(state.card.id, _NOTHING),
            cordoned=state.cordoned,
            instances=tuple(sorted(instances.get(state.card.id, ()))),
        )
        for state in cards
    )


def _add(totals: dict[CardId, _Load], charges: Charges) -> None:
    for one in charges:
        slots, mem, cores = totals.get(one.card, _NOTHING)
        totals[one.card] = (slots + one.slots, mem + one.mem_mib, cores + one.core_percent)
