"""A card as it is before anybody uses it, and what bearing a charge makes of it."""

from hami.model.ids import CardId
from hami.model.plan import Charge
from hami.plan.snapshot import CardState, NodeState

from .builders import card, node

CHARGE = Charge(CardId("d0"), 2, 500, 30)


def test_a_card_that_nobody_uses_has_all_of_itself() -> None:
    state = CardState(card("d0"))
    assert (state.use, state.cordoned, state.instances, state.sound) == ((0, 0, 0), False, (), True)
    assert (state.free_slots, state.free_mem_mib, state.free_core_percent) == (10, 8000, 100)


def test_a_charge_is_borne_once_and_taken_off_once() -> None:
    state = CardState(card("d0"))
    assert state.bearing(CHARGE).use == (2, 500, 30)
    assert state.bearing(CHARGE).without(CHARGE) == state
    whole: NodeState = node(state, CardState(card("d1")))
    assert [one.use for one in whole.bearing((CHARGE,)).cards] == [(2, 500, 30), (0, 0, 0)]
    assert whole.bearing((CHARGE,)).without((CHARGE,)) == whole
