"""Nodes that are set aside for asks that take more than half of a node."""

from random import Random

import numpy as np
import pytest

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.plan.pack import chooser
from hami.plan.pack.aside import IN_NEED, LAST, lateness, set_aside, wanted
from hami.plan.pack.judged import judging
from hami.plan.pack.lend import Lending
from hami.plan.steps import finish

from .packs import GPU, ask, bind, card, decided, ledger_of


def lively(*nodes: tuple[str, int, str, float], wide: int = 8, cpu: int = 0, types: tuple[str, ...] = ()) -> Ledger:
    """A cluster in which pods come and go, and one of eight cards runs at a time; idle but for that."""
    ledger = ledger_of(*nodes)
    for name, _, _, whole in nodes:
        ledger.set_host(NodeName(name), whole, whole)
    for number in range(40):
        came_and_went(ledger, f"small{number}")
    bind(ledger, one := ask("wide", 1000, wide, cpu, types), decided(ledger, one))
    look_again(ledger)
    return ledger


def came_and_went(ledger: Ledger, uid: str) -> None:
    bind(ledger, one := ask(uid, 1000), decided(ledger, one))
    ledger.drop_pod(one.pod.uid)


def look_again(ledger: Ledger) -> None:
    """As after some hundred asks."""
    pack, columns = ledger._index.pack, ledger._index.columns
    pack._families[GPU] = finish(judging(pack.demand, GPU, columns, pack._families[GPU]))


def aside(ledger: Ledger) -> dict[str, int]:
    """The nodes set aside, and for asks of how many cards."""
    rows = ledger._index.pack._families[GPU].aside
    return {name: int(rows[row]) for name, row in ledger._index.rows.items() if rows[row]}


def place(ledger: Ledger, uid: str, node: str, cards: int = 1) -> None:
    plan = ledger.fit(one := ask(uid, 1000, cards), NodeName(node))
    assert isinstance(plan, Plan)
    bind(ledger, one, plan)


EIGHTS = tuple((f"n{number}", 8, "A", 96_000.0) for number in range(4))


def test_as_many_nodes_are_set_aside_as_wide_pods_run_at_once_and_the_root_of_that_more() -> None:
    assert [wanted(number, 1.0) for number in (0, 1, 4, 19.4)] == [0, 2, 6, 24]
    assert len(aside(lively(*EIGHTS))) == 2, "one runs"


def test_where_nobody_leaves_no_node_is_set_aside() -> None:
    assert wanted(100, 0.0) == 0
    ledger = ledger_of(*EIGHTS)
    for number in range(20):
        bind(ledger, one := ask(f"p{number}", 1000, 8 if number == 3 else 1), decided(ledger, one))
    assert aside(ledger) == {}
    pack, columns = ledger._index.pack, ledger._index.columns
    assert set_aside(pack.demand, GPU, columns).tolist() == [0] * len(columns.version)
    assert pack._families[GPU].late(1, np.arange(4)) is None


def test_where_some_leave_and_nobody_is_wide_nobody_is_late() -> None:
    ledger = ledger_of(*EIGHTS)
    for number in range(20):
        came_and_went(ledger, f"small{number}")
    look_again(ledger)
    assert ledger._index.pack._families[GPU].late(1, np.arange(4)) is None
    late = lively(*EIGHTS)._index.pack._families[GPU].late(1, np.arange(4))
    assert late is not None
    assert late.tolist() == [LAST, LAST, 0, 0]


def test_others_go_to_a_node_that_is_set_aside_only_where_no_other_has_room() -> None:
    ledger = lively(*EIGHTS)
    kept = set(aside(ledger))
    seen = []
    for number in range(24):
        bind(ledger, one := ask(f"p{number}", 1000), plan := decided(ledger, one))
        seen.append(plan.node in kept)
    wide_on_kept = ledger.pod(PodUid("wide")).node in kept  # type: ignore[union-attr]
    free = 16 if wide_on_kept else 8
    assert seen == [False] * free + [True] * (24 - free)


def test_a_wide_pod_goes_to_a_node_that_is_set_aside_for_its_like() -> None:
    ledger = lively(*EIGHTS)
    kept = set(aside(ledger))
    ledger.drop_pod(PodUid("wide"))
    for _ in range(2):
        assert decided(ledger, ask("next", 1000, 8)).node in kept
        for name in ("n0", "n1", "n2", "n3"):  # also when the others are as idle, or idler
            if name not in kept:
                came_and_went(ledger, f"{name}-{_}")


def test_it_goes_elsewhere_where_those_are_not_idle() -> None:
    ledger = lively(*EIGHTS)
    kept = set(aside(ledger))
    ledger.drop_pod(PodUid("wide"))
    for name in kept:
        place(ledger, f"in the way {name}", name)
    assert decided(ledger, ask("next", 1000, 8)).node not in kept


def test_always_the_same_nodes_are_set_aside_whatever_runs_on_them() -> None:
    ledger = lively(*EIGHTS)
    before = aside(ledger)
    for name in before:
        if ledger.pod(PodUid("wide")).node != name:  # type: ignore[union-attr]
            place(ledger, f"long-lived {name}", name)
    look_again(ledger)
    assert aside(ledger) == before


def test_nodes_that_can_serve_more_of_what_is_asked_are_set_aside_first() -> None:
    ledger = lively(("a", 8, "A", 64_000.0), ("b", 8, "A", 128_000.0), ("c", 8, "A", 96_000.0), cpu=88_000)
    assert set(aside(ledger)) == {"b", "c"}, "what is asked needs 88 CPU"
    came_and_went(ledger, "another")
    ledger.decide(ask("larger", 1000, 8, 120_000))
    bind(ledger, one := ask("small", 1000), decided(ledger, one))
    ledger.drop_pod(PodUid("wide"))
    look_again(ledger)
    assert next(iter(sorted(aside(ledger)))) == "b"


def test_a_host_of_just_the_cpu_that_is_asked_is_set_aside() -> None:
    assert set(aside(lively(("a", 8, "A", 88_000.0), ("b", 8, "A", 87_999.0), cpu=88_000))) == {"a"}


def test_a_host_whose_cpu_is_in_use_is_set_aside_by_the_cpu_it_has() -> None:
    ledger = lively(("a", 8, "A", 96_000.0), ("b", 8, "A", 64_000.0), cpu=88_000)
    ledger.set_host(NodeName("a"), 1000.0)
    look_again(ledger)
    assert set(aside(ledger)) == {"a"}


def test_only_nodes_of_a_type_that_the_wide_pods_accept_are_set_aside() -> None:
    ledger = lively(("a", 8, "A", 1e9), ("b", 8, "B", 1e9), ("c", 8, "B", 1e9), types=("B",))
    assert set(aside(ledger)) == {"b", "c"}


def test_a_node_that_has_room_for_two_is_not_set_aside_for_one() -> None:
    assert aside(lively(("two", 8, "A", 1e9), wide=4)) == {}
    assert set(aside(lively(("two", 8, "A", 1e9), ("one", 4, "A", 1e9), wide=4))) == {"one"}


def test_the_widest_choose_first_and_no_node_is_set_aside_twice() -> None:
    ledger = lively(*EIGHTS)
    bind(ledger, one := ask("six", 1000, 6), decided(ledger, one))
    look_again(ledger)
    found = aside(ledger)
    assert sorted(found.values()) == [6, 6, 8, 8]
    assert [found[name] for name in sorted(found)] == [8, 8, 6, 6]


def test_what_is_asked_more_often_counts_for_more() -> None:
    nodes = (("a", 8, "A", 1e9), ("b", 8, "B", 1e9), ("c", 8, "B", 1e9))
    ledger = lively(*nodes, types=("A",))
    assert set(aside(ledger)) == {"a"}
    for number in range(3):
        ledger.decide(ask(f"more {number}", 1000, 8, types=("B",)))
    look_again(ledger)
    assert set(aside(ledger)) == {"b", "c"}


def test_rarer_asks_of_the_same_width_count_too() -> None:
    ledger = lively(("a", 8, "A", 64_000.0), ("b", 8, "A", 64_000.0), ("c", 8, "A", 128_000.0), cpu=60_000)
    assert set(aside(ledger)) == {"a", "b"}, "they are equal"
    ledger.decide(ask("larger", 1000, 8, 120_000))
    look_again(ledger)
    assert "c" in aside(ledger)


def test_nodes_that_join_are_not_set_aside_until_looked_at() -> None:
    ledger = lively(*EIGHTS)
    before = aside(ledger)
    ledger.judge_later()
    for number in range(200):
        ledger.decide(ask(f"asks{number}", 1000))
    for number in range(100):
        ledger.set_node(NodeRecord(NodeName(f"z{number}"), (card(f"z{number}", 0),)))
    assert decided(ledger, ask("next", 1000)).node not in aside(ledger)
    assert aside(ledger) == before


def test_a_node_with_a_sick_card_too_many_is_not_set_aside() -> None:
    ledger = lively(*EIGHTS)
    name = min(aside(ledger))
    cards = [card(name, number) for number in range(8)]
    sick = type(cards[0])(cards[0].id, GPU, "A", 0, slots=100, mem_mib=1000, core_percent=100, healthy=False)
    ledger.set_node(NodeRecord(NodeName(name), (sick, *cards[1:])))
    look_again(ledger)
    assert name not in aside(ledger)


def test_pods_without_cards_go_elsewhere_too() -> None:
    ledger = lively(*EIGHTS)
    kept = set(aside(ledger))
    names = [name for name, *_ in EIGHTS]
    assert not kept & set(ledger.shelters(ask("host", 0, cards=0, cpu=1000), names))
    assert set(ledger.shelters(ask("host", 0, cards=0, cpu=1000), sorted(kept))) <= kept, "or there, if only there"


def test_what_it_costs_says_explain() -> None:
    ledger = lively(*EIGHTS)
    name, other = min(aside(ledger)), min({name for name, *_ in EIGHTS} - set(aside(ledger)))
    ledger.drop_pod(PodUid("wide"))
    said = ledger.worth(ask("small", 1000), NodeName(name))
    assert said is not None
    assert said.formula.endswith(" - 1000000000, since the node is set aside for asks of 8 cards")
    assert (said.aside.cards, said.aside.cost) == (8, LAST)
    assert said.score == pytest.approx(sum(seat.change for seat in said.seats) + said.residues - LAST)
    wide = ledger.worth(ask("wide again", 1000, 8), NodeName(other))
    assert wide is not None
    assert wide.formula.endswith("since others are set aside for it")
    welcome = ledger.worth(ask("wide again", 1000, 8), NodeName(name))
    assert welcome is not None
    assert (welcome.aside.cards, welcome.aside.cost) == (8, 0)


def test_a_node_set_aside_for_others_costs_more_than_one_for_nobody_and_that_more_than_ones_own() -> None:
    nodes = np.array([0, 4, 8])
    assert lateness(nodes, 8, own=True).tolist() == [LAST, 2 * LAST, 0]
    assert lateness(nodes, 1, own=False).tolist() == [0, LAST, LAST]
    assert -LAST < IN_NEED < -1e6, "a gain tells whether the node is one of those"


@pytest.mark.parametrize("at_once", [2, chooser.AT_ONCE])
@pytest.mark.parametrize("seed", range(2))
def test_nobody_takes_a_node_of_others_while_another_has_room_whatever_came_before(
    seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two schedulers that saw the same decide the same."""
    monkeypatch.setattr(chooser, "AT_ONCE", at_once)
    monkeypatch.setattr(chooser, "WHOLE", at_once)  # also where not all nodes are weighed at once
    random = Random(seed)
    ledgers = [lively(*[(f"n{number:02}", 8, "A", 96_000.0) for number in range(12)]) for _ in range(2)]
    alive = ["wide"]
    for number in range(400):
        one = ask(f"p{number}", random.choice((300, 500, 1000)), cards=8 if random.random() < 0.03 else 1)
        decisions = [ledger.decide(one) for ledger in ledgers]
        plans = [decision.plan for decision in decisions]
        assert plans[0] == plans[1]
        if plans[0] is not None:
            obey(ledgers[0], one.containers[0].cards[0].cards, plans[0].node, decisions[0].feasible)
            for ledger, plan in zip(ledgers, plans, strict=True):
                bind(ledger, one, plan)  # type: ignore[arg-type]
            alive.append(one.pod.name)
        if alive and random.random() < 0.5:
            gone = alive.pop(random.randrange(len(alive)))
            for ledger in ledgers:
                ledger.drop_pod(PodUid(gone))
    assert aside(ledgers[0])


def obey(ledger: Ledger, cards: int, node: str, feasible: list[str]) -> None:
    """The rule, from the nodes' own states."""
    kept = aside(ledger)
    ranks = {name: 0 if kept.get(name) == cards else 1 if name not in kept else 2 for name in feasible}
    assert ranks[node] == min(ranks.values())


def test_where_not_all_can_be_weighed_those_set_aside_for_others_have_their_turn_last() -> None:
    ledger = lively(*EIGHTS)
    own = ledger._index.pack._families[GPU]
    want = ask("small", 1000).containers[0].cards[0]
    late = own.late(1, rows := np.arange(4))
    first, able = Lending(own.scale, want).promising(own.rows.place, rows, 1, 2, own.rows.scratch, late=late)
    kept = {ledger._index.rows[name] for name in aside(ledger)}
    assert not kept & set(first.tolist())
    assert able.sum() == 3, "one is taken whole"
