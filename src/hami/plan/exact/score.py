"""HAMi's scores: how full a node is, how full a card would be. Higher is fuller.

Both are ten times the sum of three shares (slots, cores, memory), so 0 is empty and
30 is full. A node is scored as it is, before the ask; a card as it would be after, as
HAMi documents it (its code forgets the ask, since it compares a family with a model name).
"""

from collections.abc import Iterable

from hami.model.ask import CardAsk, Weights
from hami.model.card import Card
from hami.plan.snapshot import CardState, Use


def card(own: Card, use: Use, ask: CardAsk, weights: Weights) -> float:
    """The score of a card that bears `use`, with `ask` placed on it; 0 for a card without capacity."""
    if not (own.slots and own.core_percent and own.mem_mib):
        return 0.0
    slots, mem, cores = use
    return 10 * (
        weights.slot * (1 + slots) / own.slots
        + weights.core * (ask.core_percent + cores) / own.core_percent
        + weights.memory * (ask.mem_on(own.mem_mib) + mem) / own.mem_mib
    )


def node(cards: Iterable[CardState]) -> float:
    """A node's score over all its cards of all families; 0 for one without capacity."""
    slots = cores = mem = used_slots = used_cores = used_mem = 0
    for state in cards:
        slots += state.card.slots
        cores += state.card.core_percent
        mem += state.card.mem_mib
        used_slots += state.used_slots
        used_cores += state.used_core_percent
        used_mem += state.used_mem_mib
    if not (slots and cores and mem):
        return 0.0
    return 10 * (used_slots / slots + used_cores / cores + used_mem / mem)


def card_formula(own: Card, use: Use, ask: CardAsk, weights: Weights) -> str:
    """`card` as a sum to be checked by hand: ``10 x ((1+6)/10 slots + (10+70)/100 cores + (1000+2000)/8192 MiB)``."""
    slots, mem, cores = use
    parts = (
        (weights.slot, 1, slots, own.slots, "slots"),
        (weights.core, ask.core_percent, cores, own.core_percent, "cores"),
        (weights.memory, ask.mem_on(own.mem_mib), mem, own.mem_mib, "MiB"),
    )
    terms = (
        f"{'' if weight == 1 else f'{weight} x '}({asked}+{used})/{total} {unit}"
        for weight, asked, used, total, unit in parts
    )
    return f"10 x ({' + '.join(terms)})"


def node_formula(cards: Iterable[CardState]) -> str:
    """`node` as a sum to be checked by hand: ``10 x (3/4 slots + 240/400 cores + 20480/32768 MiB)``."""
    states = list(cards)
    slots = f"{sum(one.used_slots for one in states)}/{sum(one.card.slots for one in states)}"
    cores = f"{sum(one.used_core_percent for one in states)}/{sum(one.card.core_percent for one in states)}"
    mem = f"{sum(one.used_mem_mib for one in states)}/{sum(one.card.mem_mib for one in states)}"
    return f"10 x ({slots} slots + {cores} cores + {mem} MiB)"
