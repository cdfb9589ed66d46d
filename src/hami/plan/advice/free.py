"""What is free on cards for one card ask: how many more each kind of card takes, and why some take none."""

from collections.abc import Sequence

from msgspec import Struct

from hami.model.ask import CardAsk
from hami.model.refusal import Reason
from hami.plan.advice.seats import seats_left
from hami.plan.exact.rules import STANDING, refuse
from hami.plan.snapshot import CardState


class Stuck(Struct, frozen=True):
    """Cards that cannot serve an ask, for one reason, and what is free on them all the same."""

    reason: Reason
    cards: int
    free_mem_mib: int
    free_core_percent: int


class Free(Struct, frozen=True):
    """What is free on some cards, added up."""

    mem: int
    cores: int
    mean_mem: int
    """MiB of a card, taken or not: what a percentage is of."""


class Seen(Struct, frozen=True):
    """A kind of card that an ask accepts for what it is."""

    mem: int
    cores: int
    """MiB and percent free."""
    whole_mem: int
    reason: Reason | None
    """Why it takes none all the same."""


class Look:
    """One card ask and each kind of card, in their order."""

    def __init__(self, ask: CardAsk, idle_only: bool) -> None:
        self._ask, self._idle_only = ask, idle_only
        self.seats: list[int] = []
        self.found: list[Seen | None] = []
        """None for a card that is out anyway."""

    def at(self, state: CardState) -> None:
        """Look at the next kind."""
        own = state.card.family == self._ask.family
        refusal = refuse(self._ask, state, self._idle_only) if own else None
        if not own or (refusal is not None and refusal.reason in STANDING):
            self.seats.append(0)
            self.found.append(None)
            return
        self.seats.append(0 if refusal is not None else seats_left(self._ask, state, self._idle_only))
        mem, cores = max(0, state.free_mem_mib), max(0, state.free_core_percent)
        self.found.append(Seen(mem, cores, state.card.mem_mib, refusal.reason if refusal is not None else None))

    def stuck(self, counts: Sequence[int]) -> tuple[Stuck, ...]:
        """With so many cards of each kind."""
        entries: dict[Reason, list[int]] = {}
        for seen, count in zip(self.found, counts, strict=True):
            if seen is not None and seen.reason is not None and count and (seen.mem or seen.cores):
                entry = entries.setdefault(seen.reason, [0, 0, 0])
                for place, more in enumerate((1, seen.mem, seen.cores)):
                    entry[place] += more * count
        told = (Stuck(reason, *entry) for reason, entry in entries.items())
        return tuple(sorted(told, key=lambda one: (-one.free_mem_mib, one.reason.value)))


def free_on(looks: Sequence[Look], counts: Sequence[int]) -> Free:
    """On the cards that any of the asks accepts, so many of each kind."""
    cards = whole = mem = cores = 0
    for place, count in enumerate(counts):
        seen = next((one for look in looks if (one := look.found[place]) is not None), None)
        if seen is not None:
            cards += count
            mem += seen.mem * count
            cores += seen.cores * count
            whole += seen.whole_mem * count
    return Free(mem, cores, whole // cards if cards else 0)
