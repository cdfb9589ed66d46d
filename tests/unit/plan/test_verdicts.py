"""What is kept from one decision to the next never changes an answer."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.ledger.index import Index
from hami.model.ask import Ask, NodePolicy, Weights
from hami.model.ids import NodeName
from hami.model.quota import Budget, Measure, Quantum
from hami.plan.choose import Decision, choose
from hami.plan.fleet.refusals import FEASIBLE, NOTHING, UNKNOWN
from hami.plan.fleet.verdicts import Recall

from . import builders as make
from .builders import NVIDIA, OTHER, app, init, node, pod, used, want


def fresh(index: Index) -> Index:
    other = Index()
    for state in index.states():
        other.put(state)
    return other


def change(index: Index, random: Random, decision: Decision | None) -> None:
    name = f"n{random.randrange(12):02}"
    kind = random.random()
    if kind < 0.3:
        index.put(make.random_node(random, name))
    elif kind < 0.4:
        index.drop(NodeName(name))
    elif decision is not None and decision.plan is not None:
        state = index.find(decision.plan.node)
        if state is not None:
            charged = random.choice((state.bearing, state.without))
            index.use(charged(decision.plan.charges))
            if random.random() < 0.5:  # as a hold is lifted for a moment and put back
                index.use(state)


@settings(max_examples=60, deadline=None)
@given(make.SEEDS)
def test_an_old_table_decides_as_a_new_one(seed: int) -> None:
    random = Random(seed)
    index = Index()
    asks = [make.random_ask(random) for _ in range(3)]
    decision: Decision | None = None
    for _ in range(40):
        change(index, random, decision)
        ask = random.choice(asks)
        names = [f"n{number:02}" for number in random.sample(range(14), random.randrange(14))]
        decision = choose(ask, index, names)
        assert decision == choose(ask, fresh(index), names)


def test_shapes_that_were_forgotten_are_looked_at_again() -> None:
    random = Random(3)
    index = Index()
    for number in range(5):
        index.put(make.random_node(random, f"n{number}"))
    asks = [ask for ask in (make.random_ask(random) for _ in range(Recall.SHAPES + 20)) if not ask.empty]
    first = [choose(ask, index) for ask in asks]
    assert [choose(ask, index) for ask in asks] == first


def test_words_start_anew_when_there_are_too_many() -> None:
    random = Random(4)
    index = Index()
    for number in range(5):
        index.put(make.random_node(random, f"n{number}"))
    asks = [make.random_ask(random) for _ in range(50)]
    first = [choose(ask, index) for ask in asks]
    index.recall.WORDS = 2
    assert [choose(ask, index) for ask in asks] == first


def test_what_was_found_is_kept_by_shape_until_there_is_room_for_more_nodes() -> None:
    index = Index()
    index.put(node(used("d0"), name="n0"))
    ask, alike = pod(app(want(1000, cores=10)), uid="a"), pod(app(want(1000, cores=10)), uid="b")
    recall, columns = index.recall, index.columns
    kept = recall.verdicts(ask, columns)
    assert recall.verdicts(alike, columns) is kept
    assert recall.verdicts(pod(app(want(1001))), columns) is not kept
    assert kept.stale(columns, np.array([0])).tolist() == [0]
    kept.put(columns, np.array([0]), np.array([7], np.int32), np.array([5]))
    assert kept.stale(columns, np.array([0, -1])).tolist() == []
    assert (int(kept.number[0]), int(kept.missing[0])) == (7, 5)
    kept.refuse(0, 9)
    assert (int(kept.number[0]), int(kept.missing[0])) == (9, NOTHING)
    assert (int(kept.number[-1]), int(kept.missing[-1])) == (UNKNOWN, NOTHING), "every node that is not registered"
    columns.write_use(0, 0, used("d0", 1, 5))
    assert kept.stale(columns, np.array([0])).tolist() == [0]
    for number in range(len(columns.version) + 1):
        index.put(node(used(f"d{number}"), name=f"m{number}"))
    assert recall.verdicts(ask, columns) is not kept


def test_no_more_than_so_many_shapes_are_kept_the_latest_used_last() -> None:
    index = Index()
    index.put(node(used("d0"), name="n0"))
    recall, columns = index.recall, index.columns
    recall.SHAPES = 3
    asks = [pod(app(want(size))) for size in range(1, 5)]
    rows = np.array([-1, 0])

    def known(ask: Ask) -> tuple[list[int], list[int], list[int]]:
        kept = recall.verdicts(ask, columns)
        return kept.stale(columns, rows).tolist(), kept.number.take(rows).tolist(), kept.missing.take(rows).tolist()

    for number, ask in enumerate(asks[:3]):
        kept = recall.verdicts(ask, columns)
        kept.put(columns, np.array([0]), np.array([7 + number]), np.array([50]))
    assert known(asks[0]) == ([], [UNKNOWN, 7], [NOTHING, 50])
    assert known(asks[3]) == ([0], [UNKNOWN, FEASIBLE], [NOTHING, NOTHING])
    assert known(asks[0]) == ([], [UNKNOWN, 7], [NOTHING, 50])
    assert known(asks[2]) == ([], [UNKNOWN, 9], [NOTHING, 50])
    assert known(asks[1])[0] == [0], "not used for the longest time"
    assert len(recall._verdicts) == 3


def test_where_shapes_are_forgotten_and_nodes_have_come_there_is_room_for_all() -> None:
    index = Index()
    index.put(node(used("d0"), name="n0"))
    index.recall.SHAPES = 2
    for size in (1, 2):
        choose(pod(app(want(size))), index)
    for number in range(len(index.columns.version)):
        index.put(node(used(f"m{number}"), name=f"m{number}"))
    assert len(choose(pod(app(want(3))), index).feasible) == len(index.rows)
    assert len(index.recall._verdicts) == 2


def test_of_a_shape_in_the_place_of_a_forgotten_one_nothing_is_known_yet() -> None:
    index = Index()
    index.put(node(used("d0", slots=5, mem=2000, cores=50), name="n0"))  # the best: the other is not looked at exactly
    names = ["n0", "n1", "n2", "n3"]  # so many that one is looked at by itself
    for name in names[1:]:
        index.put(node(used(f"{name}/0", mem=4000), name=name))
    index.recall.SHAPES = 1
    assert choose(pod(app(want(1000))), index).feasible == names
    large = pod(app(want(6000)))
    assert choose(large, index, ["n0"]).feasible == ["n0"]
    assert choose(large, index).feasible == ["n0"]


def test_as_many_nodes_as_there_are_rows_are_known_to_the_last_one() -> None:
    index = Index()
    while len(index.rows) < len(index.columns.version):
        index.put(node(used(f"d{len(index.rows)}"), name=f"n{len(index.rows):03}"))
    ask, every = pod(app(want(9000))), np.arange(-1, len(index.rows))
    decision = choose(ask, index)
    assert len(decision.refusals) == len(index.rows)
    assert decision == choose(ask, fresh(index))
    kept = index.recall.verdicts(ask, index.columns)
    assert kept.stale(index.columns, every).tolist() == [], "all were looked at"
    kept.refuse(-2, 7)
    assert kept.number[-3:].tolist() == [kept.number[0], 7, UNKNOWN], "the last row, then who is not registered"
    assert len(kept.number) == len(kept.missing) == len(index.columns.version) + 1
    index.columns.write_use(len(index.rows) - 1, 0, used("d0", 1, 5))
    assert kept.stale(index.columns, every).tolist() == [len(index.rows) - 1]


def test_words_are_kept_as_long_as_they_are_not_too_many() -> None:
    index, first = Index(), pod(app(want(1)))
    index.put(node(used("d0"), name="n0"))
    recall = index.recall
    kept, words = recall.verdicts(first, index.columns), recall.words
    recall.WORDS = len(words)
    assert recall.verdicts(first, index.columns) is kept
    recall.WORDS = len(words) - 1
    assert recall.verdicts(first, index.columns) is not kept
    assert recall.words is not words


def test_words_start_anew_too_where_ever_more_is_asked_and_always_the_same_is_said() -> None:
    """Of a family that no node has, each number of cards is counted by itself."""
    index = Index()
    index.put(node(used("d0"), name="n0"))
    index.recall.WORDS = 20
    for cards in range(1, 100):
        decision = choose(pod(app(want(1, cards=cards, family=OTHER))), index)
        assert decision.reasons() == {"n0": f"Device type not found: the node has no {OTHER} card"}
        assert index.recall.words.kept <= 21
    assert len(index.recall.words.forms) == 3


@pytest.mark.parametrize(
    "other",
    [
        pod(init(want(1))),
        pod(app(want(2))),
        pod(app(want(1)), cards=("binpack",)),
        pod(app(want(1)), weights=Weights(core=9)),
        replace(pod(app(want(1))), budgets=(Budget("ns", Quantum("nvidia.com/gpumem", NVIDIA, Measure.MEMORY), 9, 5),)),
    ],
)
def test_asks_that_may_be_fitted_otherwise_share_no_verdicts(other: Ask) -> None:
    index = Index()
    index.put(node(used("d0"), name="n0"))
    ask = pod(app(want(1)))
    kept = index.recall.verdicts(ask, index.columns)
    assert index.recall.verdicts(other, index.columns) is not kept
    alike = replace(ask, containers=(replace(ask.containers[0], name="another"),), node_policy=NodePolicy.SPREAD)
    assert index.recall.verdicts(alike, index.columns) is kept


def test_a_new_shape_takes_the_room_of_the_one_that_was_not_used_for_longest() -> None:
    index = Index()
    index.put(node(used("d0"), name="n0"))
    index.recall.SHAPES = 2
    first, _ = (index.recall.verdicts(pod(app(want(size))), index.columns) for size in (1, 2))
    assert index.recall.verdicts(pod(app(want(3))), index.columns) is first


def test_a_node_without_cards_is_refused_however_few_were_asked_about_before() -> None:
    """It was registered before all others, nothing has changed since, and it is no better than those beside it."""
    index = Index()
    index.put(node(name="n0"))
    for name in (f"n{number}" for number in range(1, 10)):  # so many that a few are looked at by themselves
        index.put(node(used(f"{name}/0", slots=5, mem=2000, cores=50), name=name))
    ask = pod(app(want(1000)))
    assert choose(ask, index, ["n1"]).feasible == ["n1"]
    assert list(choose(ask, index, ["n0", "n2"]).refusals) == ["n0"]
