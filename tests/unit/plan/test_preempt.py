"""Victims: enough, none too many, none too important."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.ledger.records import PodRecord
from hami.model.ask import Ask, ContainerAsk, PodRef
from hami.model.ids import CardId, PodUid
from hami.model.plan import Charge
from hami.plan.exact.preempt import LOWEST, Holder, _groups, cost, makes_room, searching, victims
from hami.plan.snapshot import NodeState
from hami.plan.steps import finish

from . import builders as make
from .builders import app, node, pod, used, want
from .world import World, random_ask


def holder(uid: str, card: str, mem: int, priority: int = 0, *, protected: bool = False) -> Holder:
    return Holder(PodRef("ns", uid, PodUid(uid)), (Charge(CardId(card), 1, mem, 0),), priority, protected)


def full(*holders: Holder) -> NodeState:
    state = node(used("d0"), used("d1"))
    for one in holders:
        state = state.bearing(one.charges)
    return state


def ask(mem: int = 4000, priority: int = 10) -> Ask:
    return replace(pod(app(want(mem))), priority=priority)


def uids(found: tuple[Holder, ...] | None) -> list[str] | None:
    return None if found is None else [one.pod.uid for one in found]


def test_nobody_has_to_go_where_there_is_room() -> None:
    assert victims(ask(), full(holder("a", "d0", 8000)), [holder("a", "d0", 8000)]) == ()


def test_the_least_important_pod_that_makes_room_goes() -> None:
    holders = [holder("a", "d0", 8000, 5), holder("b", "d1", 8000, 1)]
    assert uids(victims(ask(), full(*holders), holders)) == ["b"]


def test_equal_or_higher_priority_is_never_touched() -> None:
    holders = [holder("a", "d0", 8000, 10), holder("b", "d1", 8000, 11)]
    assert victims(ask(), full(*holders), holders) is None


def test_evicting_what_does_not_help_is_no_answer() -> None:
    holders = [holder("a", "d0", 8000), holder("b", "d1", 8000)]
    assert victims(ask(mem=9000), full(*holders), holders) is None


def test_a_pod_with_a_disruption_budget_goes_last() -> None:
    holders = [holder("a", "d0", 8000, 1, protected=True), holder("b", "d1", 8000, 5)]
    assert uids(victims(ask(), full(*holders), holders)) == ["b"]


def test_one_card_is_freed_not_half_of_each() -> None:
    holders = [holder("a", "d0", 4000), holder("b", "d0", 4000), holder("c", "d1", 8000)]
    found = victims(ask(mem=8000), full(*holders), holders)
    assert found is not None
    assert {card.card for one in found for card in one.charges} in ({"d0"}, {"d1"})


def test_cost_prefers_kept_budgets_then_low_priorities_then_few_pods() -> None:
    free, low = [holder("a", "d0", 1, 3)], [holder("b", "d0", 1, 2), holder("c", "d0", 1, 0)]
    broken = [holder("d", "d0", 1, 0, protected=True)]
    assert sorted([broken, free, low, []], key=cost) == [[], low, free, broken]


@settings(max_examples=100, deadline=None)
@given(make.SEEDS)
def test_victims_make_room_and_none_of_them_could_stay(seed: int) -> None:
    random = Random(seed)
    cards = [f"d{index}" for index in range(random.randint(1, 3))]
    holders = [
        holder(f"h{number}", random.choice(cards), random.choice((1000, 2000, 4000)), random.randrange(3))
        for number in range(random.randrange(6))
    ]
    state = node(*(used(name, mem_mib=6000) for name in cards))
    for one in holders:
        state = state.bearing(one.charges)
    asked = ask(random.choice((1000, 3000, 6000)), priority=2)
    found = victims(asked, state, holders)
    lower = [one for one in holders if one.priority < 2]
    if found is None:
        assert not makes_room(asked, state, lower)
        return
    assert set(uids(found) or ()) <= {one.pod.uid for one in lower}
    assert makes_room(asked, state, found)
    for smaller in range(len(found)):
        assert not any(makes_room(asked, state, part) for part in combinations(found, smaller))


@pytest.mark.parametrize("priority", [0, 1])
def test_the_answer_does_not_depend_on_the_order_of_the_pods(priority: int) -> None:
    holders = [holder(name, "d0", 2000, priority) for name in "abcd"] + [holder("e", "d1", 8000, 1)]
    forward = victims(ask(), full(*holders), holders)
    assert forward == victims(ask(), full(*holders), list(reversed(holders)))


def test_the_highest_priority_counts_before_the_sum() -> None:
    one_high = [holder("a", "d0", 1, 3), holder("b", "d0", 1, 0)]
    two_middling = [holder("c", "d0", 1, 2), holder("d", "d0", 1, 2)]
    assert cost(two_middling) < cost(one_high)
    assert cost(one_high) == (0, 3, 2 * 2**31 + 3, 2)
    assert cost([holder("e", "d0", 1, -5)]) > cost([])


def test_two_pods_of_negative_priority_are_more_than_one() -> None:
    one, two = [holder("a", "d0", 1, -5)], [holder("b", "d0", 1, -5), holder("c", "d0", 1, -9)]
    assert cost(one) < cost(two)


def test_one_pod_that_fills_a_card_goes_rather_than_four_that_share_one() -> None:
    four = [holder(uid, "d0", 2000) for uid in "abcd"]
    whole = holder("whole", "d1", 8000)
    assert uids(victims(ask(mem=8000), full(*four, whole), [*four, whole])) == ["whole"]
    assert len(victims(ask(mem=8000), full(*four, whole), four) or ()) == 4


def test_on_one_card_the_fewest_go() -> None:
    holders = [
        holder("large", "d0", 4000),
        holder("x", "d0", 2000),
        holder("y", "d0", 2000),
        holder("z", "d1", 8000, 10),
    ]
    assert uids(victims(ask(mem=4000), full(*holders), holders)) == ["large"]


def test_fewer_that_are_more_important_are_no_better() -> None:
    four = [holder(uid, "d0", 2000, 1) for uid in "abcd"]
    whole = holder("whole", "d1", 8000, 2)
    assert uids(victims(ask(mem=8000), full(*four, whole), [*four, whole])) == ["a", "b", "c", "d"]


def some_case(seed: int) -> tuple[Ask, NodeState, list[Holder]]:
    """Several cards, slices over two cards, containers, policies; small, so that every choice can be tried."""
    random = Random(seed)
    cards = [f"d{index}" for index in range(random.randint(1, 3))]
    state, holders = node(*(used(name, mem_mib=9, slots=4) for name in cards)), list[Holder]()
    for number in range(random.randrange(8)):
        on = random.sample(cards, min(len(cards), random.choice((1, 1, 2))))
        size = Charge(CardId("x"), 1, random.choice((1, 2, 3, 6)), random.choice((0, 20, 40)))
        charges = tuple(replace(size, card=CardId(card)) for card in sorted(on))
        one = Holder(PodRef("ns", f"h{number}", PodUid(f"h{number}")), charges, random.choice((-3, 0, 0, 1, 5)))
        loaded = state.bearing(one.charges)
        if all(min(card.free_slots, card.free_mem_mib, card.free_core_percent) >= 0 for card in loaded.cards):
            state, holders = loaded, [*holders, one]
    wanted = [want(random.choice((1, 5, 9)), cores=random.choice((0, 50, 100)), cards=random.choice((1, 1, 2)))]
    wanted += [want(3, cores=10)] * random.choice((0, 0, 1))
    policy = random.choice((("spread",), ("binpack",), ("mutex",)))
    asked = replace(pod(*map(app, wanted), cards=policy), priority=random.choice((0, 1, 2, 9)))
    return asked, state, holders


def able(asked: Ask, state: NodeState, holders: Sequence[Holder]) -> list[tuple[Holder, ...]]:
    """Every choice of victims that makes room."""
    lower = [one for one in holders if one.priority < asked.priority]
    choices = [part for size in range(len(lower) + 1) for part in combinations(lower, size)]
    return [part for part in choices if makes_room(asked, state, part)]


def test_no_choice_of_victims_costs_less() -> None:
    """Against every choice there is, in many small cases, the same each time."""
    more_than_one = 0
    for seed in range(1500):
        asked, state, holders = some_case(seed)
        found, choices = victims(asked, state, holders), able(asked, state, holders)
        assert (found is None) == (not choices), seed
        if found is not None:
            assert makes_room(asked, state, found), seed
            assert cost(found) == min(map(cost, choices)), seed
            more_than_one += len(found) > 1
    assert more_than_one > 50


def test_beside_another_node_the_answer_is_the_same_where_it_costs_no_more() -> None:
    compared = 0
    for seed in range(1500):
        asked, state, holders = some_case(seed)
        prices = set(map(cost, able(asked, state, holders)))
        for most in prices:
            bounded = finish(searching(asked, state, holders, most))
            assert bounded is not None, seed
            assert cost(bounded) == min(prices), seed
            compared += len(prices) > 1
        dearer = finish(searching(asked, state, holders, (0, LOWEST, 0, 0)))
        assert (dearer is None) == (not prices), seed
        assert dearer is None or makes_room(asked, state, dearer), seed
    assert compared > 1000


@pytest.mark.parametrize("looks", [0, 1, 5])
def test_when_the_time_is_over_the_answer_makes_room_and_nobody_in_it_could_stay(looks: int) -> None:
    dearer = 0
    for seed in range(400):
        asked, state, holders = some_case(seed)
        left = iter([False] * looks)
        found = finish(searching(asked, state, holders, enough=lambda left=left: next(left, True)))
        choices = able(asked, state, holders)
        assert (found is None) == (not choices), seed
        if found:
            assert makes_room(asked, state, found), seed
            parts = combinations(found, len(found) - 1)
            assert not any(makes_room(asked, state, part) for part in parts), seed
            dearer += cost(found) > min(map(cost, choices))
    assert dearer > 0 or looks > 1, "there was something left to look for"


def test_what_was_found_until_the_time_was_over_counts() -> None:
    state, holders = small_ones_and_a_whole_one()
    for looks, gone in ((0, 4), (4, 4), (5, 1), (50, 1)):
        left = iter([False] * looks)
        found = finish(searching(ask(mem=8000), state, holders, enough=lambda left=left: next(left, True)))
        assert len(found or ()) == gone


def test_instances_are_given_back_for_the_least_too() -> None:
    """Cards in MIG mode among the others; everything else that random clusters have as well."""
    fewer = 0
    for seed in range(140):
        random = Random(seed)
        world = World(random)
        world.ledger.drop_quota("ns", "q")
        for number in range(14):
            asked = random_ask(random, f"p{number}")
            plan = None if asked.empty else world.ledger.decide(asked).plan
            if plan is not None:
                own = PodRecord(plan.pod, plan.node, plan.containers, plan.charges, priority=random.choice((0, 0, 1)))
                world.ledger.set_pod(own)
        vip = replace(random_ask(random, "vip"), priority=random.choice((1, 6)))
        for state in world.ledger.nodes():
            holders = [Holder(one.ref, one.charges, one.priority) for one in world.ledger.pods_on(state.name)]
            if vip.empty or not state.mig or len(holders) > 7:
                continue
            found, lower = victims(vip, state, holders), [one for one in holders if one.priority < vip.priority]
            choices = [part for size in range(len(lower) + 1) for part in combinations(lower, size)]
            able = [part for part in choices if makes_room(vip, state, part)]
            assert (found is None) == (not able)
            if found is not None:
                assert cost(found) == min(map(cost, able))
                fewer += len(found) > 0
    assert fewer > 10


def small_ones_and_a_whole_one() -> tuple[NodeState, list[Holder]]:
    holders = [*(holder(uid, "d0", 2000) for uid in "abcd"), holder("whole", "d1", 8000)]
    return full(*holders), holders


@pytest.mark.parametrize(
    ("bound", "most", "gone"), [("TRIED", 0, 4), ("TRIED", 1, 1), ("LOOKED_AT", 4, 4), ("LOOKED_AT", 5, 1)]
)
def test_the_search_for_fewer_ends_at_its_bounds_with_what_it_has(
    monkeypatch: pytest.MonkeyPatch, bound: str, most: int, gone: int
) -> None:
    """Of single pods the four small ones are looked at first; only the whole one is worth an exact look."""
    monkeypatch.setattr(f"hami.plan.exact.preempt.{bound}", most)
    state, holders = small_ones_and_a_whole_one()
    assert len(victims(ask(mem=8000), state, holders) or ()) == gone


def test_only_what_promises_to_help_is_looked_at_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    exact: list[int] = []

    def counted(asked: Ask, state: NodeState, group: tuple[Holder, ...]) -> bool:
        exact.append(len(group))
        return makes_room(asked, state, group)

    monkeypatch.setattr("hami.plan.exact.preempt.makes_room", counted)
    state, holders = small_ones_and_a_whole_one()
    victims(ask(mem=8000), state, holders)
    assert exact == [1]


def test_beside_a_node_where_less_is_lost_nothing_cheaper_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    holders = [*(holder(uid, "d0", 2000, 2) for uid in "abcd"), holder("whole", "d1", 8000, 2)]
    asked, state = replace(ask(mem=8000), priority=5), full(*holders)
    looked: list[Sequence[Holder]] = []

    def groups(asked: Ask, state: NodeState, able: Sequence[Holder], most: int) -> Iterator[tuple[Holder, ...]]:
        looked.append(able)
        return _groups(asked, state, able, most)

    monkeypatch.setattr("hami.plan.exact.preempt._groups", groups)
    assert len(finish(searching(asked, state, holders, cost([holder("x", "d0", 1, 1)]))) or ()) == 4
    assert looked == []
    assert uids(finish(searching(asked, state, holders, cost([holder("x", "d0", 1, 2)])))) == ["whole"]
    assert len(looked) == 1


def test_of_as_many_the_less_important_go() -> None:
    """Two of priority 1 on one card, one of 1 and one of 0 on the other."""
    holders = [
        holder("x", "d0", 4000, 1),
        holder("y", "d0", 4000, 1),
        holder("z", "d1", 4000, 1),
        holder("w", "d1", 4000),
    ]
    assert uids(victims(ask(mem=8000), full(*holders), holders)) == ["w", "z"]


def test_of_equal_choices_the_first_is_taken() -> None:
    holders = [*(holder(uid, "d0", 2000) for uid in "abcd"), holder("v", "d1", 8000), holder("w", "d2", 8000)]
    state = node(used("d0"), used("d1"), used("d2"))
    for one in holders:
        state = state.bearing(one.charges)
    assert uids(victims(ask(mem=8000), state, holders)) == ["v"]


def test_for_a_card_alone_the_card_with_one_pod_is_cleared() -> None:
    holders = [holder("a", "d0", 10), holder("b", "d0", 10), holder("c", "d1", 7000)]
    alone = replace(pod(app(want(100)), cards=("mutex",)), priority=10)
    assert uids(victims(alone, full(*holders), holders)) == ["c"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((app(want(1)),), ["a", "b", "both", "c", "both", "ab", "aboth", "bboth", "cboth"]),
        ((app(want(1, cards=2)),), ["a", "b", "c", "both", "ab", "ac", "aboth", "bc", "bboth", "cboth"]),
        ((app(want(1)), app(want(1))), ["a", "b", "c", "both", "ab", "ac", "aboth", "bc", "bboth", "cboth"]),
    ],
)
def test_for_one_card_those_are_looked_at_together_who_are_on_one(
    asked: tuple[ContainerAsk, ...], expected: list[str]
) -> None:
    both = replace(holder("both", "d0", 1), charges=(Charge(CardId("d0"), 1, 1, 0), Charge(CardId("d1"), 1, 1, 0)))
    able = [holder("a", "d0", 1), holder("b", "d0", 1), holder("c", "d1", 1), both]
    groups = _groups(pod(*asked), full(*able), able, 2)
    assert ["".join(one.pod.uid for one in group) for group in groups] == expected


def test_a_pod_that_no_budget_protects_breaks_none_by_going() -> None:
    assert cost([Holder(PodRef("ns", "old", PodUid("old")), (), 3)])[0] == 0
