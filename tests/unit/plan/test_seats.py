"""How many of an ask a card and a node take, in closed form."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami.plan.advice.seats import capacity, closed, grouped, seats_on
from hami.plan.snapshot import CardState

from .builders import app, init, node, pod, used, want
from .migs import mig_card


@pytest.mark.parametrize(
    ("asked", "state", "seats"),
    [
        (want(1000), used(), 8),
        (want(1000), used(mem=1), 7),
        (want(1000, cores=30), used(), 3),
        (want(0, cores=0), used(slots=3), 7),
        (want(1000, cores=100), used(), 1),
        (want(1000, cores=100), used(core_percent=250), 2),
        (want(1000, cores=100), used(slots=1), 0),
        (want(percent=30), used(), 3),
        (want(9000), used(), 0),
        (want(100), used(slots=8), 2),
    ],
)
def test_a_card_seats_what_its_slots_memory_and_cores_allow(asked: object, state: CardState, seats: int) -> None:
    assert seats_on(asked, state, False) == seats  # type: ignore[arg-type]


def test_who_wants_an_idle_card_has_one_seat_there() -> None:
    alone = pod(app(want(1000)), cards=("mutex",))
    assert capacity(alone, node(used("d0"), used("d1"), used("d2", slots=1))) == 2
    assert capacity(pod(app(want(1000, cards=2)), cards=("mutex",)), node(used("d0"), used("d1"), used("d2"))) == 1


def test_cards_of_one_container_share_a_numa_node_only_where_they_must() -> None:
    apart = node(used("d0", numa=0), used("d1", numa=1))
    assert capacity(pod(app(want(8000, cards=2))), apart) == 1
    assert capacity(pod(app(want(8000, cards=2, numa_bind=True))), apart) == 0
    both = node(used("d0"), used("d1"), used("d2", numa=1), used("d3", numa=1), used("d4", numa=1))
    assert capacity(pod(app(want(8000, cards=2, numa_bind=True))), both) == 2
    assert capacity(pod(app(want(8000, cards=2))), both) == 2


@pytest.mark.parametrize(
    ("mems", "cards", "groups"),
    [((3000, 1000, 1000), 2, 2), ((3000, 3000), 2, 3), ((5000, 1000, 1000, 1000), 2, 3), ((2000, 2000, 2000), 2, 3),
     ((4000, 3000, 2000, 1000), 3, 3), ((1000, 1000), 3, 0)],
)  # fmt: skip
def test_groups_of_different_cards(mems: tuple[int, ...], cards: int, groups: int) -> None:
    state = node(*(used(f"d{number}", mem_mib=mem) for number, mem in enumerate(mems)))
    assert capacity(pod(app(want(1000, cards=cards))), state) == groups


def test_what_has_no_closed_form_is_planned_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert closed(pod(app(want()))) == want()
    assert closed(pod(init(want()))) is None
    assert closed(pod(app(want()), app(want()))) is None
    two = pod(app(want(1000)), app(want(1000)))
    assert capacity(two, node(used("d0"))) == 4
    assert capacity(pod(app(want(4000))), node(CardState(mig_card()))) == 7
    assert capacity(two, node(used("d0"), problem="silent")) == 0
    monkeypatch.setattr("hami.plan.advice.seats.MOST_TRIED", 3)
    assert capacity(two, node(used("d0"))) == 3


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=6), st.integers(1, 4))
def test_groups_are_as_many_as_taking_from_the_fullest_makes(seats: list[int], cards: int) -> None:
    left, groups = sorted(seats, reverse=True), 0
    while len(left) >= cards and left[cards - 1] > 0:
        left = sorted((one - (place < cards) for place, one in enumerate(left)), reverse=True)
        groups += 1
    assert grouped(want(cards=cards), [(one, 0) for one in seats]) == groups


@pytest.mark.parametrize(
    ("seats", "cards", "groups"),
    [
        ([8, 1], 2, 1),  # the many seats of one card are of no use alone
        ([8, 2], 2, 2),
        ([8, 3], 2, 3),
        ([9, 9], 2, 9),
        ([1, 1], 3, 0),
        ([7, 1, 1, 1], 2, 3),
        ([], 2, 0),
    ],
)
def test_groups_of_different_cards_are_as_many_as_the_others_have_seats_for(
    seats: list[int], cards: int, groups: int
) -> None:
    assert grouped(want(1, cards=cards), [(each, 0) for each in seats]) == groups
