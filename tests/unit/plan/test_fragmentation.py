"""What still fits and what is of no use: counted in closed form, judged by placing one after the other."""

from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, PodRef
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Plan, Slice
from hami.model.refusal import Reason
from hami.plan.advice.census import Alike
from hami.plan.advice.fragmentation import measure, spread
from hami.plan.advice.free import Stuck
from hami.plan.advice.residents import stand_in
from hami.plan.advice.seats import capacity
from hami.plan.advice.typical import A_STEP, Typical, learn
from hami.plan.exact.fit import fit
from hami.plan.exact.rules import refuse, standing
from hami.plan.snapshot import NodeState
from hami.plan.steps import finish

from . import builders as make
from .builders import NVIDIA, app, node, pod, used, want


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


def as_defined(typical: Typical, nodes: list[NodeState]) -> tuple[int, int, float, set[Stuck]]:
    """What is measured of one container's ask, card by card as the words say it."""
    (asked,) = typical.ask.containers[0].cards
    sound = [one for one in nodes if one.problem is None]
    own = [one for each in sound for one in each.of(asked.family) if standing(asked.rules, one) is None]
    free = sum(max(0, one.free_mem_mib) for one in own), sum(max(0, one.free_core_percent) for one in own)
    mean = sum(one.card.mem_mib for one in own) // len(own) if own else 0
    takes = asked.mem_on(mean) * asked.cards, asked.core_percent * asked.cards
    fits = sum(capacity(typical.ask, one) for one in sound)
    reasons: dict[Reason, list[int]] = {}
    for one in own:
        mem, cores = max(0, one.free_mem_mib), max(0, one.free_core_percent)
        refusal = refuse(asked, one, False)
        if refusal is not None and (mem or cores):
            entry = reasons.setdefault(refusal.reason, [0, 0, 0])
            entry[:] = entry[0] + 1, entry[1] + mem, entry[2] + cores
    stuck = {Stuck(reason, *entry) for reason, entry in reasons.items()}
    shares = [(had / took, had, took) for had, took in zip(free, takes, strict=True) if took]
    if not shares:
        return fits, fits, 0.0, stuck
    _, had, took = min(shares)
    at_best = max(fits, min(mine // per for mine, per in zip(free, takes, strict=True) if per))
    return fits, at_best, max(0.0, 100 * (1 - fits * took / had)) if had else 0.0, stuck


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_counting_what_is_alike_measures_what_looking_at_each_card_measures(seed: int) -> None:
    random = Random(seed)
    few = [make.random_node(random, f"n{number}") for number in range(random.choice((1, 3)))]
    nodes = [replace(random.choice(few), name=NodeName(f"m{number}")) for number in range(8)]
    typical = Typical("one", pod(app(make.random_want(random))), 1)
    (found,) = finish(measure([typical], nodes)).rooms
    fits, at_best, unusable, stuck = as_defined(typical, nodes)
    assert (found.fits, found.at_best, found.unusable_percent) == (fits, at_best, pytest.approx(unusable))
    assert set(found.stuck) == stuck
    assert found.searched == found.nodes == sum(one.problem is None for one in nodes)


def test_cards_named_by_an_ask_are_told_apart() -> None:
    nodes = [node(used("d0"), used("d1"), name="n0"), node(used("d2"), used("d3"), name="n1")]
    named = Typical("named", pod(app(want(8000, use_ids=("d1", "d2")))), 1)
    others = Typical("others", pod(app(want(8000, nouse_ids=("d1",)))), 1)
    assert [one.fits for one in finish(measure([named, others], nodes)).rooms] == [2, 3]


def test_the_ask_that_takes_most_comes_first() -> None:
    """By the larger of its two shares of the largest card, for each card it takes."""
    nodes = [node(used("d0", mem_mib=4000), used("d1", mem_mib=8000))]
    asks = {
        "a quarter of the memory": app(want(2000)),
        "two thirds of the time": app(want(100, cores=66)),
        "half of it twice": app(want(4000, cards=2)),
        "of a family that is not here": app(want(100, family=make.OTHER)),
    }
    found = finish(measure([Typical(name, pod(one), 1) for name, one in asks.items()], nodes))
    assert [one.name for one in found.rooms] == [
        "half of it twice",
        "of a family that is not here",
        "two thirds of the time",
        "a quarter of the memory",
    ]


def test_a_bound_on_plans_is_kept_and_told() -> None:
    """Each node takes 2 of these and a third plan says that no more go in: with 11 plans, 3 of 5 nodes."""
    nodes = [node(used("d0", mem_mib=10000 + number), name=f"n{number}") for number in range(5)]
    both = Typical("both", pod(app(want(3000)), app(want(2000))), 1)
    for trials, searched in ((11, 3), (15, 5), (2, 0)):
        (found,) = finish(measure([both], nodes, trials=trials)).rooms
        assert (found.searched, found.nodes, found.fits) == (searched, 5, 2 * searched)
        free = sum(one.cards[0].free_mem_mib for one in nodes)
        assert found.at_best == 2 * searched
        assert searched != 5 or found.unusable_percent == pytest.approx(100 * (1 - 10 * 5000 / free))


def test_the_plans_that_one_ask_leaves_are_there_for_the_next() -> None:
    nodes = [node(used("d0", mem_mib=10000 + number), name=f"n{number}") for number in range(4)]
    large, small = pod(app(want(8000)), app(want(2000))), pod(app(want(3000)), app(want(2000)))
    found = finish(measure([Typical("l", large, 1), Typical("s", small, 1)], nodes, trials=20))
    assert [(one.name, one.searched) for one in found.rooms] == [("l", 4), ("s", 4)]


def test_nodes_that_are_alike_are_planned_once() -> None:
    nodes = [node(used("d0"), used("d1"), name=f"n{number}") for number in range(50)]
    both = Typical("both", pod(app(want(3000)), app(want(2000))), 1)
    (found,) = finish(measure([both], nodes, trials=4)).rooms
    assert (found.searched, found.fits) == (50, 150)


def test_no_step_is_long() -> None:
    """A thousand nodes are never looked at in one step, so that a scheduler can serve others meanwhile."""
    nodes = [node(used("d0", mem_mib=8000 + number), name=f"n{number}") for number in range(1000)]
    typical = learn([], nodes)
    steps = sum(1 for _ in measure(typical, nodes))
    assert steps == (1 + 2 * len(typical)) * 1000 / A_STEP


def test_any_beginning_of_the_nodes_is_a_fair_part() -> None:
    """The most frequent kind first, then one from everywhere."""
    kinds = tuple(Alike(node(name=f"n{number}"), (), 3 if number == 40 else 1) for number in range(64))
    names = [one.node.name for one in spread(kinds)]
    assert names[0] == "n40"
    assert sorted(names) == sorted(one.node.name for one in kinds)
    assert {int(name[1:]) // 16 for name in names[:16]} == {0, 1, 2, 3}


def test_a_pod_that_runs_stands_for_its_ask() -> None:
    """Per container and family: how many cards, and the most that it has of one."""
    slices = (Slice(CardId("d0"), NVIDIA, 4000, 10), Slice(CardId("d1"), NVIDIA, 5000, 20))
    other = (Slice(CardId("x"), make.OTHER, 7, 0), Slice(CardId("d2"), NVIDIA, 1, 2))
    ref = PodRef("ns", "p", PodUid("u"))
    found = stand_in(ref, [slices, (), other])
    assert found == Ask(
        ref,
        (
            ContainerAsk("", ContainerKind.APP, (CardAsk(NVIDIA, 2, 20, mem_mib=5000),)),
            ContainerAsk("", ContainerKind.APP, ()),
            ContainerAsk(
                "", ContainerKind.APP, (CardAsk(make.OTHER, 1, 0, mem_mib=7), CardAsk(NVIDIA, 1, 2, mem_mib=1))
            ),
        ),
        card_policy=("binpack",),
    )


def test_the_standard_asks_are_a_whole_card_a_half_and_a_quarter_of_each_family() -> None:
    found = learn([], [node(used("d0"), used("o0", family=make.OTHER))])
    assert [one.name for one in found] == [
        f"{part} ({family})"
        for family in ("DCU", "NVIDIA")
        for part in ("a whole card", "half a card", "a quarter of a card")
    ]
    shares = [one.ask.containers[0].cards[0] for one in found]
    assert [(one.cards, one.core_percent, one.mem_percent) for one in shares] == [
        (1, 100, 100), (1, 50, 50), (1, 25, 25)
    ] * 2  # fmt: skip
    again = learn([one.ask for one in found[:1]], [node(used("d0"), used("o0", family=make.OTHER))])
    assert [(one.seen, one.ask.containers) for one in again[:1]] == [(1, found[0].ask.containers)]
    assert len(again) == 6, "what was learned is not looked at twice"
