"""Many nodes, one ask: who is best, and that nobody is forgotten."""

import numpy as np
import pytest
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.index import Index
from hami.ledger.records import NodeRecord
from hami.model.ask import Ask, NodePolicy
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.model.refusal import Reason, Refusal
from hami.plan.choose import Decision, choose
from hami.plan.exact.fit import fit
from hami.plan.fleet import screen as screening
from hami.plan.fleet.columns import MAX_CARDS
from hami.plan.fleet.refusals import Refusals
from hami.plan.fleet.screen import Screen
from hami.plan.snapshot import CardState, NodeState

from .builders import app, card, init, node, pod, sidecar, used, want
from .migs import mig_card

BINPACK, SPREAD = NodePolicy.BINPACK, NodePolicy.SPREAD


def table(*states: NodeState) -> Index:
    index = Index()
    for state in states:
        index.put(state)
    return index


def upstream() -> Index:
    """The two nodes of HAMi's own filter test."""
    return table(
        node(used("d1", 1, 2000, 25), used("d2"), name="node1"),
        node(used("d3"), used("d4", 1, 6000, 75), name="node2"),
    )


@pytest.mark.parametrize(
    ("nodes", "cards", "expected"),
    [
        (BINPACK, "binpack", ("node2", "d4")),
        (BINPACK, "spread", ("node2", "d3")),
        (SPREAD, "binpack", ("node1", "d1")),
        (SPREAD, "spread", ("node1", "d2")),
    ],
)
def test_policies_choose_node_and_card(nodes: NodePolicy, cards: str, expected: tuple[str, str]) -> None:
    decision = choose(pod(app(want(1000, cores=20)), nodes=nodes, cards=(cards,)), upstream())
    assert decision.plan is not None
    assert (decision.plan.node, decision.plan.containers[0][0].card) == expected
    assert decision.feasible == ["node1", "node2"]


def test_the_larger_of_init_and_app_is_needed_not_their_sum() -> None:
    decision = choose(pod(init(want(5000)), app(want(4000)), cards=("binpack",)), upstream())
    assert decision.plan is not None
    assert [part.card for slices in decision.plan.containers for part in slices] == ["d3", "d3"]


def test_every_name_ends_in_exactly_one_of_the_two() -> None:
    states = table(
        node(used(), name="a"), node(used(mem=8000), name="b"), node(name="c"), node(used(), name="d", problem="gone")
    )
    decision = choose(pod(app(want())), states, ["d", "c", "b", "x", "a"])
    assert decision.feasible == ["a"]
    assert decision.reasons() == {
        "d": "node unregistered: gone",
        "c": "Device type not found: the node has no NVIDIA card",
        "b": "1/1 CardInsufficientMemory: missing 1000 MiB on the best card",
        "x": "node unregistered",
    }


def test_nodes_that_were_not_asked_about_are_left_alone() -> None:
    states = table(*(node(used(), name=f"n{number}") for number in range(9)))
    for names in (["n3", "n4", "n5", "n7"], ["n4"], []):
        decision = choose(pod(app(want())), states, names)
        assert decision.feasible == names
        assert (decision.plan.node if decision.plan else None) == (names[0] if names else None)


def test_equal_nodes_are_taken_by_name_whatever_the_order_they_came_in() -> None:
    for order in ("abc", "cba", "bca"):
        states = table(*(node(used(), name=name) for name in order))
        for policy in NodePolicy:
            plan = choose(pod(app(want()), nodes=policy), states, list(order)).plan
            assert plan is not None
            assert plan.node == "a"


def test_a_pod_that_asks_for_nothing_may_go_anywhere() -> None:
    assert choose(pod(app()), upstream(), ["node1", "zz"]) == Decision(None, ["node1", "zz"], Refusals.of({}))


def test_a_node_refused_for_the_same_reason_shares_the_refusal() -> None:
    states = table(*(node(used(mem=8000), name=f"n{number}") for number in range(3)))
    refusals = list(choose(pod(app(want())), states).refusals.values())
    assert all(one is refusals[0] for one in refusals)


def test_a_row_used_again_forgets_the_node_it_had() -> None:
    states = table(node(used("d0"), used("d1"), name="a"), node(used("d2", mem=8000), name="b"))
    states.drop("a")
    assert choose(pod(app(want(cards=2))), states, ["a", "b"]).reasons() == {
        "a": "node unregistered",
        "b": "NodeInsufficientDevice: asks 2 cards, the node has 1",
    }
    states.put(node(used("d3"), name="c"))
    decision = choose(pod(app(want(use_ids=("d0", "d1", "d3")))), states)
    assert decision.feasible == ["c"]
    assert choose(pod(app(want(cards=2))), states, ["c"]).feasible == []


def test_nodes_with_more_cards_make_room_for_themselves() -> None:
    states = table(node(used("d0"), name="small"))
    states.put(node(*(used(f"d{number}") for number in range(1, 40)), name="large"))
    for number in range(100):
        states.put(node(used(f"x{number}"), name=f"later{number}"))
    assert choose(pod(app(want(cards=39))), states).feasible == ["large"]
    assert len(choose(pod(app(want())), states).feasible) == 102


def test_absurd_sizes_are_refused_not_wrapped_around() -> None:
    states = table(node(used("d0", mem_mib=2**40), name="a"), node(used("d1", mem=2**70), name="b"))
    assert choose(pod(app(want(2**33))), states).feasible == []
    assert choose(pod(app(want(2**80))), states).plan is None
    assert choose(pod(app(want(1000))), states).feasible == ["a"]


def test_an_init_container_after_a_sidecar_does_not_count_against_what_runs_later() -> None:
    states = table(node(used("d0"), name="a"))
    ask = pod(
        sidecar(want(1000)),
        init(
            want(7000),
        ),
        app(want(7000)),
    )
    assert choose(ask, states).feasible == ["a"]


PREFERRED = tuple(used(f"p{number}", slots=number // 7) for number in range(8))
"""Cards of a node that is the best for binpack: then no exact look at another one hides what the columns said."""


@pytest.mark.parametrize(
    ("state", "cores", "fits"),
    [
        (used(), (60, 40), True),
        (used(), (60, 41), False),
        (used(), (0, 100), False),
        (used(), (100, 0), False),
        (used(), (0, 99), True),
        (used(), (0, 99, 1), True),
        (used(), (99, 1, 0), False),
        (used(core_percent=200), (100, 100), True),
        (used(core_percent=200), (100, 100, 0), False),
        (used(core_percent=0), (0, 0), True),
        (used(slots=9), (0, 0), False),
        (used(slots=8), (0, 0), True),
        (used(mem=7001), (0, 0), False),
    ],
)
def test_containers_on_one_card_share_its_cores_slots_and_memory(
    state: CardState, cores: tuple[int, ...], fits: bool
) -> None:
    ask = pod(*(app(want(500, cores=share)) for share in cores))
    states = table(node(state, name="a"), node(*PREFERRED, name="b"))
    assert choose(ask, states).feasible == (["a", "b"] if fits else ["b"])


def test_a_card_that_was_replaced_is_no_longer_found_by_its_id() -> None:
    states = table(node(used("d0"), name="a"), node(*PREFERRED, name="b"))
    ask = pod(app(want(use_ids=("d0", "p0"))))
    assert choose(ask, states).feasible == ["a", "b"]
    states.put(node(used("d1"), name="a"))
    assert choose(ask, states).feasible == ["b"]
    states.put(node(used("d1"), used("d0"), name="a"))
    assert choose(ask, states).feasible == ["a", "b"]


def test_exact_looks_are_remembered_only_as_long_as_the_node_stays_as_it_is() -> None:
    """Two cards each for three containers are beyond the columns."""
    ask = pod(*(app(want(3000, cards=2)) for _ in range(3)))
    states = table(node(used("d0"), used("d1", mem=2000), used("d2", mem=2000), name="a"))
    assert choose(ask, states).feasible == ["a"]
    assert choose(ask, states).feasible == ["a"]
    full = node(used("d0"), used("d1", mem=2001), used("d2", mem=2001), name="a")
    states.use(full)
    assert choose(ask, states).feasible == []


def test_a_node_that_only_the_exact_look_refuses_is_left_for_the_next_and_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Columns may leave a node open that an exact look then refuses; the next best is taken, the reason kept."""
    states = table(node(used(), name="a"), node(used(), name="b"), node(used(mem=8000), name="full"))
    refused = Refusal(((Reason.CARDS_PARTLY_FIT, 1),), 1, "not this one")
    looked = []

    def fit_as(ask: Ask, on: Index, row: int) -> Plan | Refusal:
        looked.append(on.state(row).name)
        return refused if on.state(row).name == "a" else fit(ask, on.state(row))

    monkeypatch.setattr("hami.plan.choose.fit_as", fit_as)
    ask = pod(app(want()))
    for _ in range(2):  # the second time from what was found
        decision = choose(ask, states)
        assert decision.plan is not None
        assert (decision.plan.node, decision.feasible) == ("b", ["b"])
        assert decision.reasons() == {
            "a": "1/1 AllocatedCardsInsufficientRequest: not this one",
            "full": "1/1 CardInsufficientMemory: missing 1000 MiB on the best card",
        }
    assert looked == ["a", "b", "b"]
    monkeypatch.setattr("hami.plan.choose.fit_as", lambda *_: refused)
    assert choose(pod(app(want(999))), states).plan is None


def test_one_name_and_none_are_decided_like_many() -> None:
    states = table(node(used(), name="a"), node(used(mem=8000), name="b"))
    ask = pod(app(want()))
    assert choose(ask, states, []) == Decision(None, [], choose(ask, states, []).refusals)
    assert choose(ask, states, ["a"]).feasible == ["a"]
    assert choose(ask, states, ["b"]).reasons() == {
        "b": "1/1 CardInsufficientMemory: missing 1000 MiB on the best card"
    }
    assert choose(ask, states, ["x"]).reasons() == {"x": "node unregistered"}


@pytest.mark.parametrize("full", [0, 1, 2, 20, 39, 40])
def test_names_are_told_in_the_order_asked_however_many_are_out(full: int) -> None:
    """Few out, few in, and halves are parted in different ways."""
    names = [f"n{number:02}" for number in range(40)]
    out = set(names[3::2][:full]) | set(names[:1] if full > 18 else ()) | set(names if full == 40 else ())
    states = table(*(node(used(mem=8000 if name in out else 0), name=name) for name in reversed(names)))
    decision = choose(pod(app(want())), states, names)
    assert decision.feasible == [name for name in names if name not in out]
    assert list(decision.refusals) == [name for name in names if name in out]


def test_a_pod_without_cards_goes_where_cards_lose_least_by_it() -> None:
    """A node without cards loses nothing; of equal ones the first by name."""
    ledger = Ledger()
    ledger.set_node(NodeRecord(NodeName("cards"), (card("d0"), card("d1"))))
    ledger.set_host(NodeName("cards"), 8000.0)
    assert ledger.shelter(pod(uid="host"), ["cards", "plain"]) is None, "nobody knows yet what pods ask"
    for number in range(8):
        ledger.decide(replace(pod(app(want(8000)), uid=f"p{number}", nodes=NodePolicy.PACK), cpu_milli=4000))
    host = replace(pod(uid="host"), cpu_milli=8000)
    assert ledger.shelter(host, ["cards", "plain", "bare"]) == "bare"
    assert ledger.shelter(host, ["cards"]) == "cards"
    for name in ("b", "a"):
        ledger.set_node(NodeRecord(NodeName(name), (card(f"{name}0"),)))
        ledger.set_host(NodeName(name), 64_000.0)
    assert ledger.shelter(host, ["b", "cards", "a"]) == "a"
    ledger.set_host(NodeName("a"), 8000.0)
    assert ledger.shelter(host, ["b", "cards", "a"]) == "b"


def test_what_was_spelled_out_once_is_the_same_object_again() -> None:
    states = table(*(node(used(mem=7000 + 100 * number), name=f"n{number}") for number in range(4)))
    decision = choose(pod(app(want(9000))), states)
    first = [decision.refusals[name] for name in decision.refusals]
    assert len({one.text for one in first}) == 4
    assert all(decision.refusals[name] is one for name, one in zip(decision.refusals, first, strict=True))


def test_cards_of_three_numa_nodes_are_not_taken_for_two() -> None:
    apart = node(used("d0", numa=0), used("d1", numa=1), used("d2", numa=2), name="apart")
    pair = node(used("d0", numa=0), used("d1", numa=2), used("d2", numa=2), name="pair")
    decision = choose(pod(app(want(cards=2, numa_bind=True))), table(apart, pair))
    assert decision.feasible == ["pair"]
    assert decision.reasons() == {
        "apart": "1/3 AllocatedCardsInsufficientRequest, 2/3 NumaNotFit: "
        "asks 2 cards on one NUMA node, at most 1 there fit"
    }


def test_a_card_whose_time_is_all_taken_takes_nobody_who_asks_no_share() -> None:
    states = table(node(used(slots=1, cores=100), name="full"), node(used(slots=1, cores=99), name="almost"))
    decision = choose(pod(app(want(cores=0))), states)
    assert decision.feasible == ["almost"]
    assert decision.reasons() == {"full": "1/1 CardComputeUnitsExhausted"}
    none = table(node(used(slots=1, core_percent=0), name="uncounted"))
    assert choose(pod(app(want(cores=0))), none).feasible == ["uncounted"]


def test_only_nodes_with_instances_and_the_best_one_are_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def noted(ask: Ask, state: NodeState) -> Plan | Refusal:
        looked.append(state.name)
        return fit(ask, state)

    monkeypatch.setattr("hami.plan.fleet.screen.fit", noted)
    plain = [node(used(f"d{number}"), name=f"n{number}") for number in range(9)]
    cut = node(CardState(mig_card()), name="cut")
    silent = node(used("d9"), name="silent", problem="gone")
    decision = choose(pod(app(want(1000))), table(*plain, cut, silent))
    assert decision.feasible == [*(f"n{number}" for number in range(9)), "cut"]
    assert looked == ["cut"]


@pytest.mark.parametrize("cards", [MAX_CARDS, MAX_CARDS + 1, 256, 300])
def test_a_node_of_more_cards_than_a_scan_can_count_is_judged_card_by_card(cards: int) -> None:
    index = table(node(*(used(f"d{place}") for place in range(cards)), name="wide"))
    assert choose(pod(app(want(8000, cards=cards))), index).feasible == ["wide"]
    assert choose(pod(app(want(8001))), index).reasons() == {
        "wide": f"{cards}/{cards} CardInsufficientMemory: missing 1 MiB on the best card"
    }
    assert choose(pod(app(want(8000))), index).feasible == ["wide"]


@pytest.mark.parametrize(("nodes", "rows", "everything"), [(9, 2, False), (9, 3, True), (8, 2, False), (9, 6, True)])
def test_where_a_third_is_to_be_looked_at_all_are(nodes: int, rows: int, everything: bool) -> None:
    states = table(*(node(used(f"d{number}"), name=f"n{number}") for number in range(nodes)))
    screen = Screen(pod(app(want())), states, np.arange(rows))
    assert isinstance(screen._rows, slice) == everything


def test_a_node_of_as_many_cards_as_a_scan_can_count_is_not_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, exact = [], screening.fit
    monkeypatch.setattr(screening, "fit", lambda ask, state: looked.append(state.name) or exact(ask, state))
    sizes = {"just": MAX_CARDS, "wide": MAX_CARDS + 1}
    nodes = [node(*(used(f"{name}/{place}") for place in range(cards)), name=name) for name, cards in sizes.items()]
    assert choose(pod(app(want(8001))), table(*nodes)).feasible == []
    assert looked == ["wide"]
