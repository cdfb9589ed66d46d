"""A family judged under `pack`: when it is judged anew, what stays true meanwhile, and what a newcomer would say."""

import numpy as np
import pytest
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.ids import Family, NodeName, PodUid
from hami.plan.fleet.columns import Columns
from hami.plan.pack.chooser import MANY_SEEN
from hami.plan.pack.demand import Demand
from hami.plan.pack.judged import ENOUGH, FEW, judging
from hami.plan.pack.kept import NO_ROOM, UNWEIGHED
from hami.plan.steps import finish

from .packs import GPU, ask, bind, came_and_went, card, decided, judged, ledger_of, pack_of


def columns_of(ledger: Ledger) -> Columns:
    return ledger._index.columns


def idle(nodes: int, cards: int = 2) -> Ledger:
    return ledger_of(*[(f"n{number:03}", cards, "A", 1e9) for number in range(nodes)])


def demand_of(shapes: dict[int, int], left: int = 0) -> Demand:
    """So many pods of each MiB have asked, and `left` of all have gone."""
    demand = Demand()
    for mem, count in shapes.items():
        for number in range(count):
            demand.see(ask(f"{mem}-{number}", mem))
    for _ in range(left):
        demand.leave(PodUid("gone"))
    return demand


@pytest.mark.parametrize("step", [1, 3, 256])
def test_once_judged_every_node_has_been_looked_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.judged.A_STEP", step)
    ledger = idle(7)
    own = finish(judging(demand_of({500: 3}), GPU, columns_of(ledger)))
    assert own.rows.room[:7].tolist() == [2000] * 7
    assert own.rows.worth[0][:7].tolist() == [[4]] * 7


def test_a_step_looks_at_no_more_rows_than_a_decision_can_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.judged.A_STEP", 3)
    ledger, demand = idle(9), demand_of({500: 3})
    columns, looked = columns_of(ledger), []
    own = finish(judging(demand, GPU, columns))
    own.rows.refresh = lambda _, rows: looked.append(len(rows))  # type: ignore[method-assign]
    monkeypatch.setattr("hami.plan.pack.judged.Judged", lambda *_: own)
    finish(judging(demand, GPU, columns))
    assert looked == [3, 3, 3]


@pytest.mark.parametrize(("when", "left"), [*((when, 0) for when in range(6)), *((when, 3) for when in range(8))])
def test_nodes_that_come_while_a_family_is_being_judged_have_rows_of_their_own(when: int, left: int) -> None:
    """At any step, and so many that the columns need more room; where pods leave there are more steps."""
    ledger, demand = idle(3), demand_of({500: 3}, left)
    columns, steps = columns_of(ledger), judging(demand, GPU, columns_of(ledger))
    for _ in range(when):
        next(steps)
    for number in range(100):
        ledger.set_node(NodeRecord(NodeName(f"late{number}"), (card(f"late{number}", 0),)))
    own = finish(steps)
    own.rows.refresh(columns, np.arange(columns.rows))
    assert own.rows.room[: columns.rows].tolist() == [2000] * 3 + [1000] * 100


def test_judging_a_small_cluster_takes_five_steps() -> None:
    assert sum(1 for _ in judging(demand_of({500: 3}), GPU, columns_of(idle(3)))) == 5


@pytest.mark.parametrize(
    ("seen", "left", "leap"),
    [
        (0, 0, 1),
        (1, 0, 1),
        (3, 0, 1),
        (4, 0, 2),
        (100, 0, 50),
        (4000, 0, 2000),
        (5000, 0, 2048),
        (5000, 249, 2048),
        (5000, 250, 512),  # half of the tenth that makes a cluster lively
        (5000, 5000, 512),
        (600, 600, 300),
    ],
)
def test_the_demand_is_looked_at_again_the_later_the_more_is_known_and_sooner_where_pods_leave(
    seen: int, left: int, leap: int
) -> None:
    demand = demand_of({}, left)
    own = finish(judging(demand, GPU, columns_of(idle(1))))
    demand.seen = seen
    own.look_later(demand)
    assert own.again == seen + leap
    demand.seen = own.again - 1
    assert not own.time_to_look(demand)
    demand.seen += 1
    assert own.time_to_look(demand)
    assert not own.time_to_look(demand), "the next time is later"


@pytest.mark.parametrize(
    ("before", "now", "moved"),
    [
        ({500: 1}, {500: 7}, False),
        ({500: 9, 300: 1}, {500: 19, 300: 1}, False),
        ({500: 9, 300: 1}, {500: 15, 300: 5}, True),
        ({500: 20}, {500: 20, 300: 1}, False),  # new, and rare
        ({500: 20}, {500: 20, 300: 4}, True),
        ({500: 20, 300: 1}, {500: 20}, False),  # not asked any more
        ({500: 1}, {300: 1}, True),
        ({500: 1, 300: 1}, {500: 1, 800: 1}, True),
    ],
)
def test_demand_has_moved_when_a_fifth_of_the_mix_is_another(
    before: dict[int, int], now: dict[int, int], moved: bool
) -> None:
    own = finish(judging(demand_of(before), GPU, columns_of(idle(1))))
    own.priced, later = ENOUGH, demand_of(now)
    for later.seen, known_too_little in ((ENOUGH - 1, True), (ENOUGH, False), (ENOUGH + 1, False)):
        assert own.moved(later) == (moved or known_too_little)


def test_prices_are_made_anew_once_twice_as_many_have_asked_though_the_mix_is_the_same() -> None:
    demand, columns = demand_of({500: 9, 300: 1}), columns_of(idle(1))
    demand.seen = ENOUGH
    own = finish(judging(demand, GPU, columns))
    demand.seen = 2 * ENOUGH - 1
    assert not own.moved(demand)
    again = finish(judging(demand, GPU, columns, own))
    demand.seen = 2 * ENOUGH
    assert own.moved(demand)
    assert again.moved(demand), "what was judged by the old prices is as old as they are"


@pytest.mark.parametrize("patient", [False, True])
def test_where_pods_leave_asks_for_several_cards_count_from_the_next_look_on_though_prices_hold(
    patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who judges in steps, and for who judges at once."""
    monkeypatch.setattr("hami.plan.pack.chooser.MANY_SEEN", 1)
    monkeypatch.setattr("hami.plan.pack.judged.ENOUGH", 1)
    ledger = idle(2, 4)
    pack = pack_of(ledger)
    for number in range(40):
        pack.demand.see(ask(f"one{number}", 1000))
        pack.demand.leave(PodUid("gone"))
    ledger.decide(ask("first", 1000))
    pack.demand.see(ask("wide", 1000, cards=4))
    assert [shape.ask.cards for shape in judged(ledger).scale.shapes] == [1]
    judged(ledger).again = pack.demand.seen
    if patient:
        ledger.judge_later()
    ledger.decide(ask("next", 1000))
    finish(ledger.judge_anew())
    assert [shape.ask.cards for shape in judged(ledger).scale.shapes] == [1, 4]


def test_a_quarter_and_a_quarter_are_all_of_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.judged.MOVED", 0.5)
    own, later = finish(judging(demand_of({500: 1}), GPU, columns_of(idle(1)))), demand_of({500: 3, 300: 1})
    own.priced = later.seen = ENOUGH
    assert own.moved(later)


@pytest.mark.parametrize("asks", [1, FEW - 1, FEW])
def test_prices_made_by_few_asks_are_made_anew_by_the_first_look_at_a_mix_that_counts_as_known(asks: int) -> None:
    demand, columns = demand_of({500: 9, 300: 1}), columns_of(idle(1))
    demand.seen = asks
    own = finish(judging(demand, GPU, columns))
    for demand.seen in (ENOUGH - 1, ENOUGH):
        assert own.moved(demand)


def test_more_nodes_of_known_kinds_make_no_new_prices_and_a_new_kind_does() -> None:
    ledger = idle(2)
    for number in range(4):
        ledger.decide(ask(f"s{number}", 500))
    ledger.judge_later()
    finish(ledger.judge_anew())
    own = judged(ledger)
    own.mix = pack_of(ledger).demand.mix(GPU)
    ledger.set_node(NodeRecord(NodeName("same"), (card("same", 0),)))
    assert not own.outdated(columns_of(ledger))
    finish(ledger.judge_anew())
    assert judged(ledger) is own
    ledger.set_node(NodeRecord(NodeName("other"), (card("other", 0, "B"),)))
    finish(ledger.judge_anew())
    assert judged(ledger) is not own
    assert len(judged(ledger).scale.residues) == len(own.scale.residues) + 1


def test_a_node_of_more_cards_than_any_before_is_decided_on_while_prices_wait() -> None:
    """Columns then grow to the side, and not downwards."""
    ledger = idle(2)
    for number in range(MANY_SEEN):
        ledger.decide(ask(f"s{number}", 500 + number))
    ledger.judge_later()
    finish(ledger.judge_anew())
    rows, cards = columns_of(ledger).standing.shape[1], len(columns_of(ledger).standing)
    ledger.set_node(NodeRecord(NodeName("wide"), tuple(card("wide", place) for place in range(2 * cards))))
    assert columns_of(ledger).standing.shape == (2 * cards, rows)
    assert decided(ledger, ask("next", 500, cards=cards + 1)).node == "wide"


def test_the_commonest_family_is_judged_before_anybody_asks_for_it_here_and_no_other() -> None:
    ledger = idle(2)
    finish(ledger.judge_anew())
    assert pack_of(ledger)._families == {}, "nobody knows what is asked"
    running = ask("old", 500)
    bind(ledger, running, ledger.fit(running, NodeName("n000")))  # type: ignore[arg-type]
    finish(ledger.judge_anew())
    assert list(pack_of(ledger)._families) == [GPU]


@pytest.mark.parametrize(("seen", "waits"), [(MANY_SEEN - 1, False), (MANY_SEEN, True)])
def test_prices_wait_for_the_steps_only_once_enough_is_known(seen: int, waits: bool) -> None:
    ledger = idle(2)
    ledger.decide(ask("first", 500))
    ledger.judge_later()
    own, demand = judged(ledger), pack_of(ledger).demand
    demand.seen = seen - 1
    own.again = seen
    ledger.decide(ask("next", 500))
    assert (judged(ledger) is own) == waits
    assert pack_of(ledger)._due == ({GPU} if waits else set())


def test_what_is_not_due_takes_no_steps_and_what_was_done_is_not_due_again() -> None:
    ledger = idle(2)
    for number in range(4):
        ledger.decide(ask(f"s{number}", 500))
        came_and_went(ledger, f"gone{number}")
    ledger.judge_later()
    demand, own = pack_of(ledger).demand, judged(ledger)
    demand.seen = MANY_SEEN
    own.again = MANY_SEEN + 5
    ledger.decide(ask("early", 500))
    assert list(ledger.judge_anew()) == []
    demand.seen = MANY_SEEN + 5
    ledger.decide(ask("late", 500))
    assert list(ledger.judge_anew()) != []
    assert list(ledger.judge_anew()) == []


def test_no_more_is_kept_than_there_is_room_for_and_the_latest_used_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.pack.judged.SHAPES", 3)
    monkeypatch.setattr("hami.plan.pack.judged.LENT", 2)
    own = finish(judging(demand_of({500: 3}), GPU, columns_of(idle(1))))
    kept = {name: own.keep(name) for name in "abc"}
    assert own.keep("a") is kept["a"]
    own.keep("d")
    assert own.keep("a") is kept["a"]
    assert own.keep("b") is not kept["b"], "not used for the longest time"
    asks = [ask("one", mem).containers[0].cards[0] for mem in (100, 200, 300)]
    lent = [own.lending(one) for one in asks[:2]]
    assert own.lending(asks[0]) is lent[0]
    own.lending(asks[2])
    assert own.lending(asks[0]) is lent[0]
    assert own.lending(asks[1]) is not lent[1]
    assert (len(own._kept), len(own._lent)) == (3, 2)
    for one in own._kept.values():
        one.gain[:], one.seen[:], one.wait = 5, 5, 5
    blank = own.keep("e")
    assert (blank.gain.tolist(), blank.seen.tolist(), blank.wait) == ([NO_ROOM] * own.size, [0] * own.size, 0)


def test_no_room_is_worse_than_not_weighed_and_that_is_worse_than_any_loss() -> None:
    assert NO_ROOM < UNWEIGHED < -1e12


@pytest.mark.parametrize(("model", "mem", "like"), [("B", 1200, 1000), ("C", 300, 500), ("D", 700, 500)])
def test_cards_of_a_kind_that_came_later_count_as_the_kind_that_is_nearest_until_all_is_judged_anew(
    model: str, mem: int, like: int
) -> None:
    ledger, demand = Ledger(), demand_of({300: 3})
    for size in (1000, 500):
        ledger.set_node(NodeRecord(NodeName(f"n{size}"), (replace(card(f"n{size}", 0, f"A{size}"), mem_mib=size),)))
    columns, own = columns_of(ledger), finish(judging(demand, GPU, columns_of(ledger)))
    ledger.set_node(NodeRecord(NodeName("new"), (replace(card("new", 0, model), mem_mib=mem),)))
    ledger.set_node(NodeRecord(NodeName("other"), (replace(card("other", 0, "X"), family=Family("DCU")),)))
    own.follow(columns)
    own.rows.refresh(columns, np.arange(columns.rows))
    seats = dict(zip(["n1000", "n500", "new", "other"], own.rows.worth[0][:4, 0].tolist(), strict=True))
    assert seats == {"n1000": 3, "n500": 1, "new": like // 300, "other": 0}
    assert own.rows.room[:4].tolist() == [1000, 1000, 1000, 0]
    assert own.outdated(columns)
    anew = finish(judging(demand, GPU, columns))
    assert anew.rows.worth[0][2, 0] == mem // 300


def test_a_family_that_no_card_was_of_when_it_was_judged_has_no_room_until_it_is_judged_anew() -> None:
    ledger, demand = Ledger(), demand_of({300: 3})
    columns, own = columns_of(ledger), finish(judging(demand, GPU, columns_of(ledger)))
    ledger.set_node(NodeRecord(NodeName("first"), (card("first", 0),)))
    own.follow(columns)
    own.rows.refresh(columns, np.arange(columns.rows))
    assert own.rows.room[0] == 0
    assert own.outdated(columns)


def test_what_is_set_aside_stays_so_when_columns_grow() -> None:
    ledger = idle(2)
    columns, own = columns_of(ledger), finish(judging(demand_of({500: 3}), GPU, columns_of(ledger)))
    own.aside[1] = 8
    for number in range(100):
        ledger.set_node(NodeRecord(NodeName(f"late{number}"), (card(f"late{number}", 0),)))
    own.follow(columns)
    assert own.aside.tolist() == [0, 8] + [0] * (len(columns.version) - 2)
