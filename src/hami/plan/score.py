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
