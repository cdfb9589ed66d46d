"""A card as it is before anybody uses it, and what bearing a charge makes of it."""

from hami.model.card import Instance
from hami.model.ids import CardId
from hami.model.plan import Charge
from hami.plan.snapshot import CardState, NodeState

from .builders import card, node
from .migs import mig_card

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


def test_instances_come_and_go_with_their_charge() -> None:
    own, other = Instance("1g.5gb", 0, 1), Instance("1g.5gb", 1, 1)
    charge = Charge(CardId("d0"), 1, 4864, 15, (own,))
    state = CardState(mig_card("d0"), 1, 4864, 15, instances=(other,))
    assert state.bearing(charge) == CardState(state.card, 2, 2 * 4864, 30, instances=(own, other))
    assert state.bearing(charge).without(charge) == state


def test_a_card_is_overfull_by_one_of_anything_and_not_when_it_is_full() -> None:
    full = CardState(card("d0"), 10, 8000, 100)
    assert not full.overfull
    more = (Charge(CardId("d0"), 1, 0, 0), Charge(CardId("d0"), 0, 1, 0), Charge(CardId("d0"), 0, 0, 1))
    assert all(full.bearing(charge).overfull for charge in more)
