"""An ask as somebody might change it: a quantity cut down, a rule widened."""

from collections.abc import Callable

from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk
from hami.plan.exact.wants import wants

Cap = Callable[[CardAsk, int], CardAsk]
"""A share with one quantity cut down to at most so much."""


def each(ask: Ask, change: Callable[[CardAsk], CardAsk]) -> Ask:
    """`ask` with every container's share changed."""
    return replace(
        ask, containers=tuple(replace(one, cards=tuple(change(cards) for cards in one.cards)) for one in ask.containers)
    )


def capped(ask: Ask, cap: Cap, most: int) -> Ask:
    """`ask` with one quantity of every container cut down."""
    return each(ask, lambda one: cap(one, most))


def largest(ask: Ask, amount: Callable[[CardAsk], int]) -> int:
    """The most any container asks of a quantity."""
    return max((amount(want.ask) for want in wants(ask)), default=0)


def with_memory(ask: CardAsk, most: int) -> CardAsk:
    return ask if ask.mem_mib is None else replace(ask, mem_mib=min(ask.mem_mib, most))


def with_percent(ask: CardAsk, most: int) -> CardAsk:
    return ask if ask.mem_percent is None else replace(ask, mem_percent=min(ask.mem_percent, most))


def with_cores(ask: CardAsk, most: int) -> CardAsk:
    return replace(ask, core_percent=min(ask.core_percent, most))


def with_cards(ask: CardAsk, most: int) -> CardAsk:
    return replace(ask, cards=min(ask.cards, most))


def accepting(ask: Ask, model: str) -> Ask:
    """The ask with its type rules widened by one model."""
    name = model.casefold()

    def wider(one: CardAsk) -> CardAsk:
        rules = one.rules
        use = (*rules.use_types, model) if rules.use_types else ()
        nouse = tuple(word for word in rules.nouse_types if word.casefold() not in name)
        return replace(one, rules=replace(rules, use_types=use, nouse_types=nouse))

    return each(ask, wider)
