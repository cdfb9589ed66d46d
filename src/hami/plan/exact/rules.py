"""Whether one card accepts one ask: HAMi's rules, in HAMi's order, the first that fails is the reason.

`standing` is what the card is (it changes when the node registers), `room` is what is
left on it (it changes with every pod). The columns follow both, rule for rule.
"""

from hami.model.ask import CardAsk, CardRules
from hami.model.card import MIG, Card
from hami.model.refusal import CardRefusal, Reason
from hami.plan.exact import mig
from hami.plan.snapshot import CardState, Use

WHOLE = 100
"""Core percent that asks for a card alone."""

STANDING = frozenset({Reason.NOT_HEALTHY, Reason.CORDONED, Reason.TYPE_MISMATCH, Reason.UUID_MISMATCH})
"""What `standing` says."""


def refuse(ask: CardAsk, state: CardState, idle_only: bool) -> CardRefusal | None:
    """Why `state` does not take `ask` beside what it bears, None if it does."""
    reason = standing(ask.rules, state)
    if reason is None and state.card.mode == MIG:
        return mig.refuse(ask, state, idle_only)
    reason = reason or room(ask, state.card, state.use, idle_only)
    if reason is None:
        return None
    match reason:
        case Reason.SLOTS_EXHAUSTED:
            return CardRefusal(state.card.id, reason, 1, state.free_slots)
        case Reason.INSUFFICIENT_MEMORY:
            return CardRefusal(state.card.id, reason, ask.mem_on(state.card.mem_mib), state.free_mem_mib)
        case Reason.INSUFFICIENT_CORE:
            return CardRefusal(state.card.id, reason, ask.core_percent, state.free_core_percent)
        case _:
            return CardRefusal(state.card.id, reason)


def standing(rules: CardRules, state: CardState) -> Reason | None:
    """The rules that do not depend on what is used."""
    card = state.card
    if not card.healthy or not state.sound:
        return Reason.NOT_HEALTHY
    if state.cordoned:
        return Reason.CORDONED
    if not kind_accepted(rules, card.model, card.mode):
        return Reason.TYPE_MISMATCH
    if not id_accepted(rules, card):
        return Reason.UUID_MISMATCH
    return None


def kind_accepted(rules: CardRules, model: str, mode: str) -> bool:
    """Whether the rules accept a card of this model, in this mode."""
    if not (rules.use_types or rules.nouse_types or rules.modes):  # as a rule
        return True
    name = model.casefold()
    if rules.use_types and not any(word.casefold() in name for word in rules.use_types):
        return False
    if any(word.casefold() in name for word in rules.nouse_types):
        return False
    return not rules.modes or mode in rules.modes


def id_accepted(rules: CardRules, card: Card) -> bool:
    """Whether the rules accept this very card."""
    return (not rules.use_ids or card.id in rules.use_ids) and card.id not in rules.nouse_ids


def room(ask: CardAsk, card: Card, use: Use, idle_only: bool) -> Reason | None:  # noqa: PLR0911 - a return a rule
    """The rules of what is left: slots, memory, cores, and cards taken alone."""
    slots, mem, cores = use
    if slots >= card.slots:
        return Reason.SLOTS_EXHAUSTED
    if idle_only and slots > 0:
        return Reason.EXCLUSIVE_CONFLICT
    if card.mem_mib - mem < ask.mem_on(card.mem_mib):
        return Reason.INSUFFICIENT_MEMORY
    if card.core_percent - cores < ask.core_percent:
        return Reason.INSUFFICIENT_CORE
    if ask.core_percent == WHOLE == card.core_percent and slots > 0:
        return Reason.EXCLUSIVE_CONFLICT
    if ask.core_percent == 0 and cores == card.core_percent != 0:
        return Reason.CORES_EXHAUSTED
    return None
