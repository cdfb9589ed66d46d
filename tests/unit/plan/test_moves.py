"""Moves: they really free the ask, everybody has a place, no fewer would do, and budgets hold."""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations, product
from random import Random

import pytest
from hypothesis import example, given, settings

from hami.model.ask import Ask, CardAsk, PodRef
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Charge, Plan
from hami.plan.advice.leaving import fewest
from hami.plan.advice.moves import NoRelief, Relief, relieve
from hami.plan.advice.residents import Resident, elsewhere, stand_in
from hami.plan.exact.fit import fit
from hami.plan.snapshot import NodeState
from hami.plan.steps import finish

from . import builders as make
from .builders import app, node, pod, used, want

Nodes = dict[NodeName, NodeState]


def settled(random: Random, nodes: Sequence[NodeState], count: int) -> tuple[Nodes, list[Resident]]:
    """Pods placed where they fit, one after the other."""
    world = {one.name: one for one in nodes}
    residents = []
    for number in range(count):
        ask = pod(app(want(random.choice((1, 2, 3)), cores=random.choice((0, 20, 50)))), uid=f"p{number}")
        name = random.choice(list(world))
        plan = fit(ask, world[name])
        if isinstance(plan, Plan):
            world[name] = world[name].bearing(plan.charges)
            budgets = random.choice(((), (), ("b",)))
            residents.append(Resident(ask.pod, name, plan.charges, ask, budgets))
    return world, residents


def valid(ask: Ask, nodes: Nodes, residents: Sequence[Resident], relief: Relief) -> None:
    """Move by move, in the order told."""
    by_uid = {one.pod.uid: one for one in residents}
    world = dict(nodes)
    for move in relief.moves:
        gone = by_uid[move.pod.uid]
        assert move.source == gone.node == relief.plan.node
        world[gone.node] = world[gone.node].without(gone.charges)
    for move in relief.moves:
        there = world[move.plan.node].bearing(move.plan.charges)
        taken = {charge.card for charge in move.plan.charges}
        for card in there.cards:
            assert card.card.id not in taken or min(card.free_slots, card.free_mem_mib, card.free_core_percent) >= 0
        world[move.plan.node] = there
    assert world == relief.after(nodes, residents)
    assert isinstance(fit(ask, world[relief.plan.node]), Plan)


def on_one_choice(ask: Ask, state: NodeState, leaving: Sequence[Resident]) -> bool:
    """Whether some choice of cards for the ask bears all who leave: nobody is moved only to make room for the moved."""
    choices = combinations([one.card.id for one in state.cards], ask.containers[0].cards[0].cards)
    return any(
        all(any(charge.card in chosen for charge in one.charges) for one in leaving) for chosen in map(set, choices)
    )


def possible(ask: Ask, nodes: Nodes, residents: Sequence[Resident], allowed: Mapping[str, int], count: int) -> bool:
    """Whether `count` moves of pods of one choice of cards do, by trying everything."""
    for name in nodes:
        here = [one for one in residents if one.node == name]
        for leaving in combinations(here, count):
            if sum(one.budgets == ("b",) for one in leaving) > allowed.get("b", 0):
                continue
            if not on_one_choice(ask, nodes[name], leaving):
                continue
            free = nodes[name]
            for one in leaving:
                free = free.without(one.charges)
            plan = fit(ask, free)
            if not isinstance(plan, Plan):
                continue
            start = {**nodes, name: free.bearing(plan.charges)}
            for order, targets in product(permutations(leaving), product(nodes, repeat=count)):
                world = dict(start)
                for one, target in zip(order, targets, strict=True):
                    there = fit(one.ask, world[target])
                    if not isinstance(there, Plan):
                        break
                    world[target] = world[target].bearing(there.charges)
                else:
                    if isinstance(fit(ask, world[name].without(plan.charges)), Plan):
                        return True
    return False


@settings(max_examples=60, deadline=None)
@given(make.SEEDS)
@example(280809)
@example(90328146679)
@example(1004230469779)
def test_moves_free_the_ask_and_no_fewer_would(seed: int) -> None:
    random = Random(seed)
    nodes, residents = settled(random, [make.random_small_node(random, name) for name in ("a", "b", "c")], 7)
    nodes = {NodeName(name): NodeState(NodeName(name), 1, one.cards) for name, one in nodes.items()}
    ask = pod(app(want(random.choice((7, 10)), cores=random.choice((0, 50, 100)), cards=random.choice((1, 1, 2)))))
    if any(isinstance(fit(ask, one), Plan) for one in nodes.values()):
        return
    allowed = {"b": random.choice((0, 1, 9))}
    found = finish(relieve(ask, nodes, residents, allowed, most=2))
    fewer = range(1, len(found.moves)) if isinstance(found, Relief) else range(1, 3)
    if isinstance(found, Relief):
        valid(ask, nodes, residents, found)
        assert (
            sum("b" in one.budgets for one in residents if one.pod in [move.pod for move in found.moves])
            <= allowed["b"]
        )
    else:
        assert found == NoRelief(searched_all=True)
    for count in fewer:
        assert not possible(ask, nodes, residents, allowed, count)


def half(uid: str, where: NodeState, card: str) -> Resident:
    ask = pod(app(want(4000, cores=50, use_ids=(card,))), uid=uid)
    plan = fit(ask, where)
    assert isinstance(plan, Plan)
    return Resident(ask.pod, where.name, plan.charges, pod(app(want(4000, cores=50)), uid=uid))


def world() -> tuple[Nodes, list[Resident]]:
    """Two nodes of one card, each half full."""
    one, two = node(used("d0"), name="a"), node(used("d1"), name="b")
    residents = [half("p", one, "d0"), half("q", two, "d1")]
    return {
        one.name: one.bearing(residents[0].charges),
        two.name: two.bearing(residents[1].charges),
    }, residents


WHOLE = pod(app(want(8000, cores=100)))


def test_one_of_two_halves_goes_beside_the_other() -> None:
    nodes, residents = world()
    found = finish(relieve(WHOLE, nodes, residents, {}))
    assert isinstance(found, Relief)
    assert [(move.pod.uid, move.source, move.plan.node) for move in found.moves] == [("p", "a", "b")]
    assert found.plan.node == "a"


def test_a_pod_that_may_not_be_disrupted_stays() -> None:
    nodes, residents = world()
    guarded = [Resident(one.pod, one.node, one.charges, one.ask, ("ns/b",)) for one in residents]
    assert finish(relieve(WHOLE, nodes, guarded, {"ns/b": 0})) == NoRelief(searched_all=True)
    assert isinstance(finish(relieve(WHOLE, nodes, guarded, {"ns/b": 1})), Relief)
    fixed = [Resident(one.pod, one.node, one.charges, one.ask, fixed=True) for one in residents]
    assert isinstance(finish(relieve(WHOLE, nodes, fixed, {})), NoRelief)


def test_a_search_that_is_cut_short_says_so() -> None:
    nodes, residents = world()
    assert finish(relieve(WHOLE, nodes, residents, {}, trials=1)) == NoRelief(searched_all=False)


def test_a_stand_in_asks_what_the_slices_are() -> None:
    _, residents = world()
    plan = fit(residents[0].ask, node(used("d0")))
    assert isinstance(plan, Plan)
    again = fit(stand_in(PodRef("ns", "pod-p", PodUid("p")), plan.containers), node(used("d0")))
    assert isinstance(again, Plan)
    assert again.charges == plan.charges


def test_elsewhere_is_another_node() -> None:
    nodes, residents = world()
    assert finish(elsewhere(residents[0], nodes.values())) == "b"
    assert finish(elsewhere(residents[0], [nodes[NodeName("a")]])) is None


def test_a_budget_gives_up_no_more_pods_than_it_may() -> None:
    """Both halves of a card belong to one budget, and both would have to go to another node."""
    first = half("p", node(used("d0"), name="a"), "d0")
    one = node(used("d0"), name="a").bearing(first.charges)
    second = half("q", one, "d0")
    nodes = {one.name: one.bearing(second.charges), NodeName("b"): node(used("d1", mem_mib=8001), name="b")}
    residents = [Resident(each.pod, each.node, each.charges, each.ask, ("ns/b",)) for each in (first, second)]
    large = pod(app(want(8000, cores=100, use_ids=("d0",))))
    assert finish(relieve(large, nodes, residents, {"ns/b": 1})) == NoRelief(searched_all=True)
    assert isinstance(finish(relieve(large, nodes, residents, {"ns/b": 2})), Relief)


def test_no_more_pods_are_moved_than_was_allowed_and_all_places_were_looked_at() -> None:
    """Two thirds of a card must leave it, one at a time is not enough."""
    first, second = (half(uid, node(used("d0"), name="a"), "d0") for uid in ("p", "q"))
    one = node(used("d0"), name="a").bearing(first.charges).bearing(second.charges)
    nodes = {one.name: one, NodeName("b"): node(used("d1"), name="b")}
    residents = [first, second]
    ask = pod(app(want(8000, cores=100, use_ids=("d0",))))
    assert finish(relieve(ask, nodes, residents, {}, most=1)) == NoRelief(searched_all=True)
    found = finish(relieve(ask, nodes, residents, {}, most=2))
    assert isinstance(found, Relief)
    assert {move.pod.uid for move in found.moves} == {"p", "q"}
    for trials in range(1, 4):
        assert finish(relieve(ask, nodes, residents, {}, most=2, trials=trials)) == NoRelief(searched_all=False)
    after = found.after(nodes, residents)
    assert isinstance(fit(ask, after[NodeName("a")]), Plan)
    assert after[NodeName("b")].cards[0].use == (2, 8000, 100)


@pytest.mark.parametrize(("on", "least"), [(1, 4), (2, 2)])
def test_where_every_card_has_to_be_left_it_is_known_at_once_how_many_must_go(on: int, least: int) -> None:
    """Four cards, all wanted whole; pods on one card each, or on two."""
    one, residents = node(*(used(f"d{number}") for number in range(4)), name="a"), []
    for number in range(4 // on):
        own = tuple(f"d{number * on + place}" for place in range(on))
        plan = fit(pod(app(want(4000, cards=on, use_ids=own)), uid=f"p{number}"), one)
        assert isinstance(plan, Plan)
        one = one.bearing(plan.charges)
        residents.append(Resident(plan.pod, one.name, plan.charges, pod(app(want(4000, cards=on)), uid=f"p{number}")))
    nodes = {one.name: one, NodeName("b"): node(*(used(f"e{number}", slots=8) for number in range(4)), name="b")}
    whole = pod(app(want(8000, cores=100, cards=4)))
    assert finish(relieve(whole, nodes, residents, {}, most=least - 1, trials=3)) == NoRelief(searched_all=True)
    found = finish(relieve(whole, nodes, residents, {}, most=least))
    assert isinstance(found, Relief)
    assert len(found.moves) == least


def test_one_large_pod_leaves_rather_than_a_small_one_and_it() -> None:
    """4000 MiB lack: the small one gives 1000, the large one 5000."""
    one = node(used("d0"), name="a")
    plans = {}
    for uid, mem in (("small", 1000), ("large", 5000)):
        plan = fit(pod(app(want(mem)), uid=uid), one)
        assert isinstance(plan, Plan)
        plans[uid] = plan
        one = one.bearing(plan.charges)
    residents = [
        Resident(plan.pod, one.name, plan.charges, pod(app(want(plan.charges[0].mem_mib)), uid=uid))
        for uid, plan in plans.items()
    ]
    nodes = {one.name: one, NodeName("b"): node(used("d1", mem_mib=6000), name="b")}
    found = finish(relieve(pod(app(want(6500))), nodes, residents, {}))
    assert isinstance(found, Relief)
    assert [move.pod.uid for move in found.moves] == ["large"]


@pytest.mark.parametrize(
    ("asked", "taken", "least"),
    [
        (want(8000), [(1, 3000, 0), (1, 3000, 0)], 2),
        (want(5000), [(1, 3000, 0), (1, 3000, 0)], 1),
        (want(1000), [(1, 3000, 0)], 0),
        (want(1000, cores=50), [(1, 0, 30), (1, 0, 40)], 1),
        (want(1000, cores=80), [(1, 0, 30), (1, 0, 40)], 2),
        (want(1000), [(1, 0, 60), (1, 0, 40)], 1),
        (want(1000), [(5, 0, 0), (5, 0, 0)], 1),
        (want(1000, cores=100), [(1, 10, 0), (1, 10, 0)], 2),
        (want(9000), [(1, 3000, 0)], None),
    ],
)
def test_so_many_must_leave_a_card_at_least(
    asked: CardAsk, taken: list[tuple[int, int, int]], least: int | None
) -> None:
    charges = [Charge(CardId("d0"), *each) for each in taken]
    state = node(used("d0"))
    for charge in charges:
        state = state.bearing((charge,))
    assert fewest(asked, state.cards[0], charges) == least


def test_of_a_card_that_counts_no_cores_nobody_lacks_any() -> None:
    charge = Charge(CardId("d0"), 1, 3000, 0)
    state = node(used("d0", core_percent=0)).bearing((charge,)).cards[0]
    assert (fewest(want(1000), state, [charge]), fewest(want(8000), state, [charge])) == (0, 1)


def test_who_is_not_named_may_stand_in_the_way_for_good() -> None:
    """A card alone is asked, and somebody is on it who is never moved."""
    charge = Charge(CardId("d0"), 1, 10, 0)
    state = node(used("d0", slots=1)).bearing((charge,))
    assert fewest(want(100, cores=100), state.cards[0], [charge]) is None


def test_the_last_slot_of_a_card_and_a_full_one_take_who_needs_no_more() -> None:
    _, residents = world()
    last = node(used("d2", slots=9), name="c")
    assert finish(elsewhere(residents[0], [last])) == "c"
    assert finish(elsewhere(residents[0], [node(used("d2", slots=10), name="c")])) is None
    weightless = Resident(PodRef("ns", "w", PodUid("w")), NodeName("a"), (), pod(app(want(0)), uid="w"))
    assert finish(elsewhere(weightless, [node(used("d2", slots=1, mem=8000), name="c")])) == "c"
    assert finish(elsewhere(residents[0], [node(used("d2", mem=4001), name="c")])) is None
    assert finish(elsewhere(residents[0], [node(used("d2"), name="c", problem="silent")])) is None
