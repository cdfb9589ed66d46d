"""How far a node is from fitting an ask: a cheap guess, by which the nodes worth a closer look are chosen."""

from hami.model.ask import Ask, CardAsk
from hami.plan.exact.rules import id_accepted, kind_accepted
from hami.plan.exact.wants import wants
from hami.plan.snapshot import CardState, NodeState


def distance(ask: Ask, node: NodeState) -> float:
    """A cheap guess at how far `node` is from fitting; only the order matters."""
    if node.problem is not None:
        return 1e6
    total = 0.0
    for want in wants(ask):
        lacks = sorted(_lack(want.ask, state) for state in node.of(want.ask.family))
        lacks += [2.0] * (want.ask.cards - len(lacks))
        total += sum(lacks[: want.ask.cards])
    return total


def _lack(ask: CardAsk, state: CardState) -> float:
    card, mem = state.card, ask.mem_on(state.card.mem_mib)
    lack = max(0, mem - state.free_mem_mib) / mem if mem else 0.0
    lack += max(0, ask.core_percent - state.free_core_percent) / ask.core_percent if ask.core_percent else 0.0
    lack += 0.5 * (not kind_accepted(ask.rules, card.model, card.mode)) + 0.75 * (not id_accepted(ask.rules, card))
    return lack + state.cordoned + (state.free_slots < 1) + 4.0 * (not card.healthy)
