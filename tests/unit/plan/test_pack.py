"""The policy `pack` against a slow version that says the same in a few plain lines."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.ledger.survey import survey
from hami.model.ask import Ask, NodePolicy
from hami.model.ids import CardId, NodeName, PodUid
from hami.model.plan import Plan
from hami.plan.pack.demand import MEMORY, Demand
from hami.plan.pack.kept import UNWEIGHED
from hami.plan.pack.prices import residues
from hami.plan.steps import finish

from .packs import (
    GPU,
    SIZES,
    ask,
    bind,
    card,
    decided,
    fresh,
    fresh_choice,
    learned,
    ledger_of,
    rooms_of,
    slow_options,
    slow_worth,
)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_the_node_that_is_taken_loses_least_by_the_slow_count_too(seed: int) -> None:
    random = Random(seed)
    nodes = [
        (f"n{place}", random.choice([1, 2, 4]), random.choice("AB"), random.choice([4e3, 16e3, 64e3]))
        for place in range(4)
    ]
    ledger, cpu = ledger_of(*nodes), {name: free for name, _, _, free in nodes}
    models = {name: model for name, _, model, _ in nodes}
    seen: list[Ask] = []
    for number in range(14):
        cards = random.choice([1, 1, 1, 1, 2])
        mem = random.choice(SIZES) if cards == 1 and random.random() < 0.7 else 1000
        one = ask(f"p{number}", mem, cards, random.choice([0, 500, 2000]), random.choice([(), (), ("A",)]))
        seen.append(one)
        plan = ledger.decide(one).plan
        if plan is None:
            continue
        known = seen if number < 1 else seen[: fresh(number + 1)]
        losses = {}
        for name, *_ in nodes:
            options = slow_options(rooms_of(ledger, name), mem, cards)
            if not options or (one.containers[0].cards[0].rules.use_types and models[name] != "A"):
                continue
            before = slow_worth(rooms_of(ledger, name), models[name], cpu[name], known)
            after = [slow_worth(rooms, models[name], cpu[name] - one.cpu_milli, known) for rooms in options]
            losses[name] = before - max(after), before - min(after)
        bind(ledger, one, plan)
        # its card was chosen without a look at the host, so any card of the others may have been compared with
        assert losses[plan.node][0] <= min(high for _, high in losses.values()) + 1
        ledger.set_host(plan.node, cpu[plan.node] - one.cpu_milli)
        cpu[plan.node] -= one.cpu_milli
    assert ledger.recount() == []


def test_shares_are_put_where_the_residue_is_of_use() -> None:
    ledger = ledger_of(("a", 1, "A", 1e9), ("b", 1, "A", 1e9))
    for number in range(30):
        ledger.decide(ask(f"s{number}", 500 if number % 3 else 300))
    bind(ledger, half := ask("half", 500), ledger.fit(half, NodeName("a")))  # type: ignore[arg-type]
    assert decided(ledger, ask("next", 500)).node == "a"


def test_nodes_wide_enough_for_pods_of_several_cards_are_kept_for_them() -> None:
    ledger = ledger_of(("wide", 4, "A", 1e9), ("narrow", 1, "A", 1e9))
    for number in range(20):
        ledger.decide(ask(f"w{number}", 1000, cards=4 if number % 4 == 0 else 1))
    assert decided(ledger, ask("one", 1000)).node == "narrow"


def test_where_pods_leave_again_a_rare_seat_for_several_cards_outweighs_much() -> None:
    nodes = (("wide", 4, "A", 16_000.0), ("rich", 1, "A", 64_000.0))  # the rich one's CPU is worth more to the others
    still, lively = ledger_of(*nodes), ledger_of(*nodes)
    for number in range(40):
        seen = ask(f"seen{number}", 1000, cards=4 if number == 0 else 1, cpu=48_000 if number % 4 == 1 else 4000)
        still.decide(seen)
        lively.decide(seen)
    for number in range(20):
        one = ask(f"gone{number}", 1000, cpu=4000)
        bind(lively, one, decided(lively, one))
        lively.drop_pod(one.pod.uid)
        still.decide(one)
    assert decided(still, ask("next", 1000, cpu=4000)).node == "wide"
    assert decided(lively, ask("next", 1000, cpu=4000)).node == "rich"


def test_where_pods_leave_again_a_node_that_is_nearly_idle_is_left_to_become_so() -> None:
    ledger = ledger_of(("more", 4, "A", 1e9), ("less", 4, "A", 1e9))
    for number in range(20):
        ledger.decide(ask(f"seen{number}", 1000, cards=4 if number == 0 else 1))
        bind(ledger, one := ask(f"gone{number}", 1000), decided(ledger, ask(f"gone{number}", 1000)))
        ledger.drop_pod(one.pod.uid)
    for uid, node in (("a", "more"), ("b", "less"), ("c", "less")):
        bind(ledger, one := ask(uid, 1000), ledger.fit(one, NodeName(node)))  # type: ignore[arg-type]
    assert decided(ledger, ask("next", 1000)).node == "less"


def test_rare_asks_for_several_cards_count_beside_frequent_ones_for_one() -> None:
    demand = Demand()
    for number in range(200):
        demand.see(ask(f"s{number}", 470))
    demand.see(ask("w", 1000, cards=4, cpu=3000))
    demand.see(ask("s", 810))
    single, wide = demand.frequent(GPU)
    assert (single.shape.ask.mem_mib, wide.shape.ask.cards, wide.shape.cpu_milli) == (470, 4, 3000)
    assert wide.weight == pytest.approx(1 / 201)


def test_turnover_is_known_once_a_tenth_has_left() -> None:
    demand = Demand()
    for number in range(100):
        demand.see(ask(f"s{number}", 470))
    assert demand.turnover == 0
    for left, turnover in ((5, 0.5), (5, 1.0), (50, 1.0)):
        for _ in range(left):
            demand.leave(PodUid("gone"))
        assert demand.turnover == turnover


def test_cpu_is_kept_for_cards_that_are_free() -> None:
    ledger = ledger_of(("poor", 2, "A", 8000.0), ("rich", 2, "A", 64_000.0))
    for number in range(10):
        ledger.decide(ask(f"w{number}", 1000, cpu=4000))
    assert decided(ledger, ask("hungry", 1000, cpu=8000)).node == "rich"
    assert ledger.shelter(ask("host", 0, cards=0, cpu=8000), ["poor", "rich"]) == "rich"


def test_the_order_of_names_changes_nothing_but_which_of_equal_nodes_is_taken() -> None:
    names = ["n1", "n2", "n3"]
    ledgers = [ledger_of(*[(name, 2, "A", 1e9) for name in order]) for order in (names, names[::-1])]
    for number, mem in enumerate((470, 810, 320, 1000, 470, 650)):
        one = ask(f"p{number}", mem)
        plans = [decided(ledger, one) for ledger in ledgers]
        assert plans[0].node == plans[1].node
        for ledger, plan in zip(ledgers, plans, strict=True):
            bind(ledger, one, plan)
    assert rooms_of(ledgers[0], "n1") == rooms_of(ledgers[1], "n1")


def test_kube_schedulers_other_choice_gets_the_card_that_pack_would_take() -> None:
    ledger = ledger_of(("a", 2, "A", 1e9), ("b", 2, "A", 1e9))
    bind(ledger, first := ask("first", 500), ledger.fit(first, NodeName("b")))  # type: ignore[arg-type]
    plan = ledger.fit(ask("second", 500), NodeName("b"))
    assert isinstance(plan, Plan)
    assert plan.containers[0][0].card == first_card(ledger, "first")


def first_card(ledger: Ledger, uid: str) -> CardId:
    record = ledger.pod(PodUid(uid))
    assert record is not None
    return record.containers[0][0].card


def test_a_pod_that_is_tried_again_teaches_nothing_new() -> None:
    demand = Demand()
    for _ in range(5):
        demand.see(ask("same", 470))
    assert demand.seen == 1
    demand.see(ask("other", 470))
    (one,) = demand.frequent(GPU)
    assert (demand.seen, one.weight) == (2, 1.0)


def test_old_demand_fades() -> None:
    demand = Demand()
    for number in range(MEMORY):
        demand.see(ask(f"old{number}", 470))
    for number in range(MEMORY):
        demand.see(ask(f"new{number}", 810))
    weights = {one.shape.ask.mem_mib: one.weight for one in demand.frequent(GPU)}
    assert weights[810] > 0.6


def test_after_a_restart_running_pods_are_the_first_lesson() -> None:
    ledger = ledger_of(("a", 2, "A", 1e9))
    bind(ledger, one := ask("one", 470), decided(ledger, one))
    record = ledger.pod(PodUid("one"))
    assert record is not None
    demand = Demand()
    demand.see_running(PodUid("one"), record.containers)
    assert [weighed.shape.ask.mem_mib for weighed in demand.frequent(GPU)] == [470]


@settings(max_examples=50)
@given(st.dictionaries(st.integers(1, 999), st.integers(1, 500), min_size=1, max_size=12))
def test_residue_prices_are_those_of_a_linear_program(counts: dict[int, int]) -> None:
    price = residues({size: float(count) for size, count in counts.items()})
    assert price[1000] == pytest.approx(1.0, abs=1e-6)
    assert (np.diff(price) >= -1e-9).all()
    for room in (300, 777, 1000):  # what is cut out of two parts is never worth more than the whole
        assert (price[: room + 1] + price[room::-1] <= price[room] + 1e-6).all()


def test_a_size_that_goes_with_no_other_costs_a_whole_card() -> None:
    assert residues({810: 100.0, 470: 50.0})[810] == pytest.approx(1.0)
    assert residues({500: 10.0})[500] == pytest.approx(0.5)
    assert residues({500: 10.0})[499] == 0
    assert residues({})[999] == 0


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_what_is_told_of_a_node_adds_up_to_the_score_that_decided(seed: int) -> None:
    random = Random(seed)
    nodes = [(f"n{place}", random.choice([1, 2, 4]), "A", random.choice([4e3, 16e3, 64e3])) for place in range(4)]
    ledger = ledger_of(*nodes)
    for number in range(12):
        one = ask(f"p{number}", random.choice(SIZES), random.choice([1, 1, 2]), random.choice([0, 2000]))
        plan = ledger.decide(one).plan
        told = {name: ledger.worth(one, NodeName(name)) for name, *_ in nodes}
        room = {name: worth for name, worth in told.items() if worth is not None}
        assert (plan is None) == (not room)
        if plan is None:
            continue
        assert room[plan.node].score >= max(worth.score for worth in room.values()) - 0.01
        for worth in room.values():
            assert worth.score == pytest.approx(sum(seat.change for seat in worth.seats) + worth.residues, abs=0.01)
            assert sum(price.free != price.free_after for price in worth.prices) == one.containers[0].cards[0].cards
        changed = {price.place for price in room[plan.node].prices if price.free != price.free_after}
        assert {f"{plan.node}/{place}" for place in changed} == {slice_.card for slice_ in plan.containers[0]}
        bind(ledger, one, plan)


def test_seats_and_prices_are_told_as_one_would_count_them() -> None:
    ledger = ledger_of(("n", 2, "A", 1e9))
    for number in range(10):
        ledger.decide(ask(f"s{number}", 500, cpu=2000))
    worth = ledger.worth(ask("next", 500, cpu=2000), NodeName("n"))
    assert worth is not None
    (seat,) = worth.seats
    assert (seat.shape, seat.before, seat.after, seat.weight) == ("1 x 500 MiB with 2 CPU", 4, 3, 500)
    assert [(price.free, price.worth, price.free_after, price.worth_after) for price in worth.prices] == [
        (1000, 1000, 500, 500), (1000, 1000, 1000, 1000),
    ]  # fmt: skip
    assert (worth.residues, worth.score) == (-3000, -3500)  # sixfold, and one seat
    assert worth.formula == "seats -500.0 - residues 3000.0"


def test_a_survey_under_pack_carries_what_was_compared() -> None:
    ledger = ledger_of(("a", 2, "A", 1e9), ("b", 1, "A", 1e9))
    for number in range(10):
        ledger.decide(ask(f"s{number}", 470))
    found = finish(survey(ledger, ask("next", 470)))
    scores = {one.node: one.pack.score for one in found.nodes if one.pack is not None}
    assert found.plan is not None
    assert max(scores, key=lambda name: scores[name]) == found.plan.node
    assert len(scores) == 2
    binpack = replace(ask("other", 470), node_policy=NodePolicy.BINPACK)
    assert all(one.pack is None for one in finish(survey(ledger, binpack)).nodes)


def test_where_pods_leave_again_a_seat_weighs_more_the_fewer_there_are() -> None:
    ledger = ledger_of(("rich", 1, "A", 64_000.0), *[(f"poor{number}", 2, "A", 2000.0) for number in range(250)])

    def weights() -> dict[str, float]:
        """Of a whole card for a modest pod, and for one that only the rich node's CPU serves."""
        worth = ledger.worth(ask("next", 1000, cpu=35_000), NodeName("rich"))
        assert worth is not None
        return {seat.shape: seat.weight for seat in worth.seats}

    for number in range(30):
        ledger.decide(ask(f"p{number}", 1000, cpu=40_000 if number % 2 else 200))
    modest, hungry = "1 x 1000 MiB with 0.2 CPU", "1 x 1000 MiB with 40 CPU"
    assert weights() == {modest: 500, hungry: 500}
    for number in range(20):
        bind(ledger, one := ask(f"gone{number}", 1000, cpu=200), decided(ledger, ask(f"gone{number}", 1000, cpu=200)))
        ledger.drop_pod(one.pod.uid)
    for number in range(40):
        ledger.decide(ask(f"q{number}", 1000, cpu=40_000 if number % 2 else 200))
    seats = 1 + 250 * 2 / 40  # a poor node's CPU is worth a part of one
    assert seats + 1 > 0.02 * 501
    assert weights() == pytest.approx({modest: 2000 / 3, hungry: 1000 / 3})
    for number in range(250):
        ledger.set_host(NodeName(f"poor{number}"), 200)
    for number in range(100):
        ledger.decide(ask(f"r{number}", 1000, cpu=40_000 if number % 2 else 200))
    seats = 1 + 250 * 0.2 / 40
    found = weights()
    assert found[hungry] / found[modest] == pytest.approx(0.02 * 501 / (seats + 1) * 65 / 95, rel=0.1)


def test_where_nodes_are_many_those_that_lose_least_are_weighed_first_and_the_others_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hami.plan.pack.chooser.AT_ONCE", 2)
    monkeypatch.setattr("hami.plan.pack.chooser.WHOLE", 2)
    monkeypatch.setattr("hami.plan.pack.kept.PATIENCE", 3)
    ledger = ledger_of(*[(f"n{number}", 1, "A", 1e9) for number in range(6)])
    for number in range(30):
        ledger.decide(ask(f"s{number}", 500 if number % 3 else 300))
    for name in ("n2", "n4"):
        bind(ledger, half := ask(f"half-{name}", 500), ledger.fit(half, NodeName(name)))  # type: ignore[arg-type]
    whole = fresh_choice(ledger, ask("next", 500))
    assert whole.node == "n2", "one of the two whose cards lose least, the first of these by name"
    index = ledger._index
    rows = index.rows_of([f"n{number}" for number in range(6)])
    for unweighed in (4, 4, 2, 2, 2, 0, 0):
        gains = index.pack.gains(ask("same", 500), index.columns, rows)
        assert (gains == UNWEIGHED).sum() == unweighed
    assert gains[2] == gains[4] > gains[0] == gains[1] == gains[3] == gains[5]


def test_where_none_of_those_weighed_has_room_others_have_their_turn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.chooser.AT_ONCE", 2)
    monkeypatch.setattr("hami.plan.pack.chooser.WHOLE", 2)
    ledger = ledger_of(*[(f"n{number}", 1, "A", 1e9) for number in range(6)])
    index = ledger._index
    rows = index.rows_of([f"n{number}" for number in range(6)])
    first = index.pack.gains(ask("first", 500), index.columns, rows)
    without = rows[first == UNWEIGHED]
    assert (index.pack.gains(ask("same", 500), index.columns, without) == UNWEIGHED).sum() == 2


def test_who_judges_later_goes_by_the_old_prices_until_all_steps_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.chooser.MANY_SEEN", 1)
    monkeypatch.setattr("hami.plan.pack.judged.A_STEP", 1)
    names = ["a", "b", "c"]
    later, at_once = (ledger_of(*[(name, 2, "A", 1e9) for name in names]) for _ in range(2))
    later.judge_later()
    finish(later.judge_anew())
    for ledger in (later, at_once):
        learned(ledger, 0, 6, (500, 300))
    old = later.worth(ask("next", 300), NodeName("a"))
    assert old != at_once.worth(ask("next", 300), NodeName("a"))
    steps = later.judge_anew()
    for _ in range(4):
        next(steps)
        assert later.worth(ask("next", 300), NodeName("a")) == old
    finish(steps)
    fresh_ledger = ledger_of(*[(name, 2, "A", 1e9) for name in names])
    for number in range(6):
        fresh_ledger._index.pack.demand.see(ask(f"seen{number}", (500, 300)[number % 2]))
    assert later.worth(ask("next", 300), NodeName("a")) == fresh_ledger.worth(ask("next", 300), NodeName("a"))


def test_nodes_that_come_while_prices_are_old_are_judged_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than there were rows for, wider ones, and one with a card of a kind that has no price yet: it has the
    price of the known kind that is nearest."""
    monkeypatch.setattr("hami.plan.pack.chooser.MANY_SEEN", 1)
    ledger = ledger_of(("a", 1, "A", 1e9))
    learned(ledger, 0, 30, (300, 500, 500))
    ledger.judge_later()
    for number in range(100):
        ledger.set_node(NodeRecord(NodeName(f"n{number:02}"), (card(f"n{number}", 0),)))
    ledger.set_node(NodeRecord(NodeName("wide"), tuple(card("wide", place) for place in range(12))))
    ledger.set_node(NodeRecord(NodeName("new"), (card("new", 0, "B"),)))
    assert decided(ledger, ask("many", 500, cards=12)).node == "wide"
    bind(ledger, one := ask("half", 500), ledger.fit(one, NodeName("n50")))  # type: ignore[arg-type]
    assert decided(ledger, ask("other", 500)).node == "n50"
    other = ask("other", 500)
    assert ledger.worth(other, NodeName("new")) == ledger.worth(other, NodeName("n51"))
    assert decided(ledger, ask("typed", 500, types=("B",))).node == "new"
    finish(ledger.judge_anew())
    assert ledger.worth(other, NodeName("new")) is not None
    assert ledger.recount() == []


def test_where_pods_leave_what_is_scarce_is_seen_anew_by_old_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.chooser.MANY_SEEN", 1)
    monkeypatch.setattr("hami.plan.pack.judged.ENOUGH", 1)
    ledger = ledger_of(("a", 4, "A", 1e9), ("b", 4, "A", 1e9))
    learned(ledger, 0, 10, (1000,))
    ledger.judge_later()
    finish(ledger.judge_anew())
    calm = ledger.worth(ask("next", 1000), NodeName("a"))
    for number in range(10):
        bind(ledger, one := ask(f"gone{number}", 1000), decided(ledger, ask(f"gone{number}", 1000)))
        ledger.drop_pod(one.pod.uid)
    before = ledger._index.pack._families[GPU].scale.residues
    bind(ledger, one := ask("wide", 1000, cards=4), decided(ledger, ask("wide", 1000, cards=4)))
    finish(ledger.judge_anew())
    scale = ledger._index.pack._families[GPU].scale
    assert scale.turnover == 1.0
    assert all(old is new for old, new in zip(before, scale.residues, strict=True))
    assert ledger.worth(ask("next", 1000), NodeName("b")) != calm
