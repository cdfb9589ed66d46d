"""What a row of the columns must say of its node, from the node's cards alone."""

from hami.plan.exact import score
from hami.plan.fleet.columns import ABSENT, CORDONED, NO_SLOT, NO_UNITS, SICK, USED, USED_ALL, Columns
from hami.plan.snapshot import CardState, NodeState

NUMBERS = ("free_slots", "free_mem", "free_core", "mem", "core", "numa")


def room(state: CardState) -> int:
    found = NO_SLOT if state.used_slots >= state.card.slots else 0
    if state.used_slots > 0:
        found |= USED | USED_ALL if state.card.core_percent == 100 else USED
    return found | NO_UNITS if state.used_core_percent == state.card.core_percent != 0 else found


def standing(state: CardState) -> int:
    if not (state.card.healthy and state.sound):
        return SICK
    return CORDONED if state.cordoned else 0


def judge_row(columns: Columns, row: int, state: NodeState) -> None:
    """Fails unless every cell of the row says what the cards say."""
    for place, one in enumerate(state.cards):
        want = (
            one.free_slots, one.free_mem_mib, one.free_core_percent,
            one.card.mem_mib, one.card.core_percent, one.card.numa,
        )  # fmt: skip
        assert tuple(int(getattr(columns, cell)[place, row]) for cell in NUMBERS) == want
        assert columns.room[place, row] == room(one)
        assert columns.standing[place, row] == standing(one)
        assert columns.kinds[columns.kind[place, row]] == (one.card.family, one.card.model, one.card.mode)
    assert set(columns.standing[len(state.cards) :, row].tolist()) <= {ABSENT}
    assert columns.cards[row] == len(state.cards)
    assert columns.node_score[row] == score.node(state.cards)
    assert bool(columns.usable[row]) == (state.problem is None)
    assert columns.registered[row]
    assert (row in columns.odd) == (state.problem is not None or state.mig)
