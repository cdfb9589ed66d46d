"""Cards chosen by their links."""

from itertools import combinations
from math import comb
from random import Random

import pytest

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.ask import NodePolicy
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.plan.exact.fit import fit
from hami.plan.policies import topology
from hami.plan.snapshot import CardState, NodeState

from .builders import app, card, linked, links, pod, want


def taken(state: NodeState, cards: int, *, policy: tuple[str, ...] = ("topology-aware",), **rules: object) -> list[str]:
    plan = fit(pod(app(want(1000, cards=cards, **rules)), cards=policy), state)
    assert isinstance(plan, Plan)
    return [part.card for part in plan.containers[0]]


ONE_BADLY_LINKED = {pair: 10 if 7 in pair else 200 for pair in combinations(range(8), 2)}


def test_a_badly_linked_card_goes_to_those_who_need_one_and_not_to_those_who_need_two() -> None:
    state = linked(ONE_BADLY_LINKED, cards=8)
    assert taken(state, 1) == ["d7"]
    assert taken(state, 2) == ["d0", "d1"]
    assert "d7" not in taken(state, 7)
    assert len(taken(state, 8)) == 8


@pytest.mark.parametrize(
    ("scores", "cards", "expected"),
    [
        ({(0, 1): 10, (2, 3): 400, (1, 2): 100}, 2, ["d2", "d3"]),
        ({(0, 1): -5, (0, 2): -5, (0, 3): -5, (1, 2): -9, (1, 3): -9, (2, 3): -1}, 2, ["d2", "d3"]),
        ({(0, 1): 9, (1, 2): 9, (0, 2): 9, (2, 3): 20}, 3, ["d0", "d2", "d3"]),
        ({}, 2, ["d0", "d1"]),
        ({(0, 1): 0, (2, 3): 0}, 2, ["d0", "d1"]),
    ],
)
def test_the_set_with_the_highest_sum_of_pairs_is_taken(
    scores: dict[tuple[int, int], int], cards: int, expected: list[str]
) -> None:
    assert taken(linked(scores), cards) == expected


def test_only_cards_that_fit_count_and_the_emptier_ones_break_ties() -> None:
    equal = dict.fromkeys(combinations(range(4), 2), 50)
    assert taken(linked(equal, busy=(0, 1)), 2) == ["d2", "d3"]
    assert taken(linked(equal, busy=(2, 3)), 2, policy=("topology-aware", "binpack")) == ["d2", "d3"]
    assert taken(linked(equal, busy=(0, 3)), 2, policy=("mutex", "topology-aware")) == ["d1", "d2"]


def test_the_choice_is_the_best_of_all_sets() -> None:
    random = Random(7)
    for _ in range(20):
        scores = {pair: random.randrange(-20, 400, 10) for pair in combinations(range(8), 2)}
        for cards in (2, 3, 4, 5):
            found = [int(name[1:]) for name in taken(linked(scores, cards=8), cards)]
            best = max(sum(scores[pair] for pair in combinations(one, 2)) for one in combinations(range(8), cards))
            assert sum(scores[pair] for pair in combinations(found, 2)) == best


def test_sixteen_cards_and_more_stay_bounded() -> None:
    """There are 10,518,300 sets of 8 out of 32 cards."""
    random = Random(7)
    for cards in (16, 32):
        scores = {pair: random.randrange(400) for pair in combinations(range(cards), 2)}
        scores[(3, 5)] = 10_000
        assert {"d3", "d5"} <= set(taken(linked(scores, cards=cards), 8))


def test_numa_binding_comes_before_links() -> None:
    state = linked({(0, 1): 10, (1, 2): 500})
    bound = tuple(CardState(card(f"d{number}", numa=number // 2)) for number in range(4))
    assert taken(NodeState(state.name, 1, bound, None, state.links), 2, numa_bind=True) == ["d0", "d1"]


def test_the_ledger_hands_the_links_on() -> None:
    ledger = Ledger()
    cards = tuple(card(f"d{number}") for number in range(4))
    ledger.set_node(NodeRecord(NodeName("n"), cards, links=links({(1, 3): 5})))
    plan = ledger.decide(pod(app(want(cards=2)), cards=("topology-aware",))).plan
    assert plan is not None
    assert [part.card for part in plan.containers[0]] == ["d1", "d3"]


def nodes(*sizes: int) -> Ledger:
    ledger = Ledger()
    for size in sizes:
        cards = tuple(card(f"n{size}-{number}", index=number) for number in range(size))
        ledger.set_node(NodeRecord(NodeName(f"n{size}"), cards))
    return ledger


@pytest.mark.parametrize(("cards", "node"), [(1, "n2"), (2, "n2"), (3, "n4"), (5, "n8")])
@pytest.mark.parametrize("policy", [NodePolicy.BINPACK, NodePolicy.SPREAD])
def test_the_smallest_node_that_fits_is_taken(cards: int, node: str, policy: NodePolicy) -> None:  # 6.15
    ledger = nodes(8, 4, 2)
    busy = pod(app(want(1000)), uid="busy", nodes=NodePolicy.BINPACK)
    plan = ledger.fit(busy, NodeName("n8"))
    assert isinstance(plan, Plan)
    ledger.reserve(busy, plan, 0.0, 10.0)
    found = ledger.decide(pod(app(want(1000, cards=cards)), nodes=policy, cards=("topology-aware",))).plan
    assert found is not None
    assert found.node == node


def test_without_the_policy_the_node_policy_alone_decides() -> None:
    ledger = nodes(8, 2)
    busy = pod(app(want(1000)), uid="busy")
    plan = ledger.fit(busy, NodeName("n8"))
    assert isinstance(plan, Plan)
    ledger.reserve(busy, plan, 0.0, 10.0)
    found = ledger.decide(pod(app(want(1000)))).plan
    assert found is not None
    assert found.node == "n8"


@pytest.mark.parametrize("cards", [8, 16])
def test_the_work_for_a_choice_is_bounded_and_the_choice_the_best(cards: int) -> None:
    """Counted in sets weighed, not in time: one product of matrices weighs them all."""
    random = Random(cards)
    scores = {pair: random.randrange(-50, 400, 10) for pair in combinations(range(cards), 2)}
    state = linked(scores, cards=cards)
    weighed = 0
    for wanted in range(2, cards):
        topology._members.cache_clear()
        found = [int(name[1:]) for name in taken(state, wanted)]
        rows = topology._members.cache_info().currsize and len(topology._members(cards, wanted)[1])
        weighed += rows
        assert rows == comb(cards, wanted) <= topology.MOST_SETS
        if cards == 8 or wanted in (2, 3, 13, 14):
            best = max(sum(scores[pair] for pair in combinations(one, 2)) for one in combinations(range(cards), wanted))
            assert sum(scores[pair] for pair in combinations(found, 2)) == best
    assert weighed == 2**cards - cards - 2


def test_a_choice_that_was_weighed_once_is_not_enumerated_again() -> None:
    state = linked({pair: sum(pair) for pair in combinations(range(16), 2)}, cards=16)
    topology._members.cache_clear()
    for _ in range(10):
        taken(state, 8)
    assert topology._members.cache_info().misses == 1


def test_beyond_the_bound_sets_grow_card_by_card(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = dict.fromkeys(combinations(range(32), 2), 10) | {(3, 5): 1000, (3, 9): 900, (5, 9): 900}
    monkeypatch.setattr(topology, "_members", None)
    assert taken(linked(scores, cards=32), 5) == ["d0", "d1", "d3", "d5", "d9"]


def test_the_size_of_a_node_weighs_more_than_how_full_it_is() -> None:
    """Binpack would take the full large one, spread the empty large one: the small one is taken by both."""
    ledger = nodes(4, 2)
    busy = pod(app(want(8000, cores=90, cards=3)), uid="busy")
    plan = ledger.fit(busy, NodeName("n4"))
    assert isinstance(plan, Plan)
    ledger.reserve(busy, plan, 0.0, 10.0)
    for policy in (NodePolicy.BINPACK, NodePolicy.SPREAD):
        found = ledger.decide(pod(app(want(10)), nodes=policy, cards=("topology-aware",))).plan
        assert found is not None
        assert found.node == "n2"
        ask = pod(app(want(1000)), uid=f"fill{policy}")
        full = ledger.fit(ask, NodeName("n2"))
        assert isinstance(full, Plan)
        ledger.reserve(ask, full, 0.0, 10.0)


def test_a_set_that_is_grown_has_each_card_once_however_bad_the_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.policies.topology.MOST_SETS", 0)
    bad = {(0, 1): -5, (0, 2): -5, (0, 3): -5, (1, 2): -9, (1, 3): -9, (2, 3): -1}
    assert taken(linked(bad), 2) == ["d2", "d3"]
    assert taken(linked(bad), 3) == ["d0", "d2", "d3"]
