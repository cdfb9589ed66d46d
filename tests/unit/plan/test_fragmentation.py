"""What still fits and what is of no use: counted in closed form, judged by placing one after the other."""

from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.model.ask import Ask
from hami.model.plan import Plan
from hami.model.refusal import Reason
from hami.plan.fit import fit
from hami.plan.fragmentation import Stuck, Typical, capacity, learn, measure
from hami.plan.snapshot import NodeState
from hami.plan.steps import finish

from . import builders as make
from .builders import app, node, pod, used, want


def placed(ask: Ask, state: NodeState) -> int:
    """As many as go in, spread over the cards so that the last ones meet as many different cards as there can be."""
    count = 0
    while isinstance(plan := fit(ask, state), Plan):
        state = state.bearing(plan.charges)
        count += 1
    return count


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_the_closed_form_counts_what_placing_one_by_one_counts(seed: int) -> None:
    random = Random(seed)
    asked = make.random_want(random)
    if not asked.mem_mib and not asked.core_percent:
        asked = replace(asked, mem_mib=1, mem_percent=None)
    state = make.random_node(random)
    counted = capacity(pod(app(asked)), state)
    if asked.cards == 1:
        assert counted == placed(pod(app(asked)), state)
    else:  # placing in any fixed order may waste a card, but never finds more
        assert counted >= placed(pod(app(asked)), state)
        assert (counted > 0) == isinstance(fit(pod(app(asked)), state), Plan)


def test_groups_of_cards_are_counted_exactly() -> None:
    """Seats 3, 1, 1 and groups of two: the full card is in each, so two groups."""
    state = node(used("d0", mem_mib=3000), used("d1", mem_mib=1000), used("d2", mem_mib=1000))
    assert capacity(pod(app(want(1000, cards=2))), state) == 2
    assert capacity(pod(app(want(1000, cards=3))), state) == 1
    bound = node(used("d0", numa=0), used("d1", numa=1), used("d2", numa=1))
    assert capacity(pod(app(want(8000, cards=2, numa_bind=True))), bound) == 1


def test_the_number_is_what_typical_asks_cannot_use_of_what_is_free() -> None:
    """Two cards half free hold no whole one; four quarters fit."""
    halves = node(used("d0", 1, 4000, 50), used("d1", 1, 4000, 50))
    whole = Typical("whole", pod(app(want(8000, cores=100))), 3)
    quarter = Typical("quarter", pod(app(want(2000, cores=25))), 1)
    found = finish(measure([quarter, whole], [halves]))
    assert [(one.name, one.fits, one.at_best, one.unusable_percent) for one in found.rooms] == [
        ("whole", 0, 1, 100.0),
        ("quarter", 4, 4, 0.0),
    ]
    assert found.percent == pytest.approx(75.0)
    assert found.rooms[0].stuck == (Stuck(Reason.INSUFFICIENT_MEMORY, 2, 8000, 100),)


def test_the_same_load_packed_is_less_fragmented() -> None:
    """Row 6.19: the number goes down when the same slices lie on one card."""
    spread = node(used("d0", 1, 4000, 50), used("d1", 1, 4000, 50))
    packed = node(used("d0", 2, 8000, 100), used("d1"))
    typical = learn([pod(app(want(4000, cores=50)))] * 2, [spread])
    assert finish(measure(typical, [packed])).percent == 0
    typical = learn([pod(app(want(4000, cores=50))), pod(app(want(8000, cores=100)))], [spread])
    before, after = (finish(measure(typical, [state])).percent for state in (spread, packed))
    assert (before, after) == (50, 0)


def test_typical_asks_are_learned_and_the_standard_ones_are_there() -> None:
    asks = [pod(app(want(2000), name=f"c{number}"), uid=str(number)) for number in range(3)]
    found = learn([*asks, pod(app(want(5000, cores=20, cards=2)))], [node(used())])
    assert [(one.name, one.seen) for one in found] == [
        ("1 x 2000 MiB", 3),
        ("2 x 5000 MiB, 20 %", 1),
        ("a whole card", 0),
        ("half a card", 0),
        ("a quarter of a card", 0),
    ]


def test_a_node_with_a_problem_has_no_room() -> None:
    found = finish(measure(learn([], [node(used())]), [node(used(), problem="silent")]))
    assert [one.fits for one in found.rooms] == [0, 0, 0]


def test_pods_of_several_containers_are_counted_by_planning() -> None:
    both = pod(app(want(3000)), app(want(2000)))
    assert capacity(both, node(used("d0"), used("d1"))) == 3
