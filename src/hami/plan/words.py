"""Asks in words, the same wherever people read of one. Refusals have words of their own."""

from hami.model.ask import CardAsk


def spoken(ask: CardAsk) -> str:
    """``2 x 10000 MiB, 40 %``: how many cards, and of each how much."""
    mem = f"{ask.mem_mib} MiB" if ask.mem_mib is not None else f"{ask.mem_percent} % memory"
    cores = f", {ask.core_percent} %" if ask.core_percent else ""
    types = f" of {','.join(ask.rules.use_types)}" if ask.rules.use_types else ""
    return f"{ask.cards} x {mem}{cores}{types}"
