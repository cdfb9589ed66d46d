"""The tables of `pack`: what a card of each kind has, what a seat is worth, what odd cards and asks come to."""

from fractions import Fraction

import numpy as np
import pytest

from hami.ledger.index import Index
from hami.ledger.records import NodeRecord
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName
from hami.model.plan import Plan
from hami.plan.fleet.columns import Columns
from hami.plan.pack import worth as module
from hami.plan.pack.prices import residues
from hami.plan.pack.scale import A_STEP, PLENTY, capacities, residue_of, share_of
from hami.plan.pack.worth import Rows
from hami.plan.steps import Steps, finish

from .builders import node, used, want
from .packs import GPU, N, ask, bind, busy, card, columns_of, demand_of, ledger_of, scale_of, taught

DCU = Family("DCU")


def test_of_each_kind_the_largest_card_counts_and_a_kind_that_has_gone_has_nothing() -> None:
    index = Index()
    first = (used("d0", mem_mib=1000, core_percent=100), used("d1", mem_mib=3000, core_percent=0))
    index.put(node(*first, name="a"))
    index.put(node(used("d2", model="B", mem_mib=500, core_percent=300), name="b"))
    index.put(node(used("d3", model="C", mem_mib=700, core_percent=50), name="c"))
    index.drop(NodeName("c"))
    assert capacities(index.columns, len(index.columns.kinds)) == [(0, 0), (3000, 100), (500, 300), (0, 0)]
    assert capacities(index.columns, 2) == [(0, 0), (3000, 100)], "a kind that came later is not asked for"


def steps_of(steps: Steps[object]) -> int:
    return sum(1 for _ in steps)


@pytest.mark.parametrize(("shapes", "steps"), [(0, 0), (1, 1), (A_STEP, 1), (A_STEP + 1, 2), (3 * A_STEP, 3)])
def test_shapes_are_priced_a_step_at_a_time(shapes: int, steps: int) -> None:
    asks = [(want(mem + 1, cards=2), 1.0) for mem in range(shapes)]  # of several cards: nothing is to be solved
    assert steps_of(residue_of(asks, 1000, 100)) == steps


def test_a_kind_that_has_gone_is_priced_at_nothing_in_no_time() -> None:
    assert steps_of(residue_of([(want(500), 1.0)] * 1000, 0, 0)) == 0
    assert finish(residue_of([(want(500), 1.0)], 0, 0)).tolist() == [0.0] * 1001


def test_parts_are_priced_by_how_often_they_are_asked_in_thousandths_of_the_card() -> None:
    """Beside one of 600 go two of 200: five of 200 fill a card, so they have a price only where they are many."""
    for large, small in ((0.2, 0.6), (0.2, 0.3), (5.0, 11.0)):
        found = finish(residue_of([(want(1200), large), (want(400), small / 2), (want(399), small / 2)], 2000, 100))
        assert found == pytest.approx(1000 * residues({600: large, 200: small}))
        assert found[200] == pytest.approx(200 if small > 2 * large else 0, abs=1e-6)


def test_an_ask_for_nothing_takes_nothing_of_a_card_whatever_that_counts() -> None:
    for kind in ((1000, 100), (1000, 0), (0, 0)):
        assert share_of(want(0), *kind) == 0
    assert share_of(want(0, cores=1), 1000, 0) == 0
    assert share_of(want(1), 10_000, 0) == 1


def test_a_row_is_looked_at_again_when_it_has_changed_and_not_before() -> None:
    columns = columns_of(card("n", 0))
    scale = scale_of(demand_of((500, 1, 0, 1)), card("n", 0))
    rows, every = Rows(scale, columns), np.array([0])
    rows.refresh(columns, every)
    rows.room[0] = 7
    rows.refresh(columns, every)
    assert rows.room[0] == 7, "nothing has changed"
    columns.write_host(0, 1000)
    rows.refresh(columns, every)
    assert rows.room[0] == 1000


def rows_after(changed: list[int], monkeypatch: pytest.MonkeyPatch) -> tuple[Rows, Columns, list[int]]:
    """Five rows of which some have changed since they were looked at; their columns; what is looked at from now on."""
    monkeypatch.setattr(module, "FEW_CHANGED", 2)
    columns = ledger_of(*[(f"n{row}", 1, "A", 1e9) for row in range(5)])._index.columns
    rows, looks, places = Rows(scale_of(demand_of((500, 1, 0, 1)), card("n", 0)), columns), list[int](), module._places
    rows.refresh(columns, np.arange(5))
    for row in changed:
        columns.write_host(row, 1000)
    monkeypatch.setattr(module, "_places", lambda *given: looks.extend(given[1].tolist()) or places(*given))
    return rows, columns, looks


@pytest.mark.parametrize(
    ("asked", "changed", "looked_at"),
    [
        ([0, 1, 2], [1], [1]),
        ([0, 1, 2], [1, 4], [1]),  # few are asked about: no other is looked at
        ([0, 1, 2], [4], []),
        ([0, 1, 2, 3], [1, 4], [1, 4]),  # many are, and few have changed
        ([0, 1, 2, 3], [4], [4]),
        ([0, 1, 2, 3], [1, 2, 4], [1, 2]),  # many are, and many have
        ([0, 1, 2, 3], [], []),
    ],
)
def test_of_few_rows_only_those_are_looked_at_again_of_many_perhaps_others_that_have_changed_too(
    asked: list[int], changed: list[int], looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW_ROWS", 3)
    rows, columns, looks = rows_after(changed, monkeypatch)
    rows.refresh(columns, np.array(asked))
    assert looks == looked_at


@pytest.mark.parametrize(("changed", "looked_at"), [([], []), ([3], [3]), ([0, 4], [0, 4]), ([0, 1, 2], [0, 1])])
def test_between_decisions_rows_that_have_changed_are_looked_at_but_no_more_than_a_few(
    changed: list[int], looked_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, columns, looks = rows_after(changed, monkeypatch)
    rows.look_ahead(columns)
    assert looks == looked_at
    rows.refresh(columns, np.arange(5))
    assert sorted(looks) == changed, "none twice"


@pytest.mark.parametrize(("size", "seats"), [(1, 1000), (2, 500), (333, 3), (1000, 1)])
def test_a_card_has_as_many_seats_as_shares_go_into_it(size: int, seats: int) -> None:
    scale = scale_of(demand_of((size, 1, 0, 1)), card("n", 0))
    assert scale.seats[scale.place[-1]].tolist() == [seats]
    assert scale.seats[scale.place[-1] - 1].tolist() == [999 // size]


def test_a_card_is_one_seat_of_several_however_small_they_are() -> None:
    ledger = busy([1000, 1000, 250, 1000])
    taught(ledger, [(300, 2, 0, ())] * 3, 0)
    worth = ledger.worth(ask("next", 1000), N)
    assert worth is not None
    assert [(seat.shape, seat.before, seat.after) for seat in worth.seats] == []  # three cards or two: one pair
    worth = ledger.worth(ask("next", 1000, cards=2), N)
    assert worth is not None
    assert [(seat.shape, seat.before, seat.after) for seat in worth.seats] == [("2 x 300 MiB", 1, 0)]


def odd_card(name: str, **fields: object) -> Card:
    own = {"family": GPU, "model": "A", "index": 0, "slots": 100, "mem_mib": 1000, "core_percent": 100}
    return Card(CardId(name), **(own | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cards", "size"),
    [
        ((odd_card("a"),), 500),
        ((odd_card("a", core_percent=0),), 500),
        ((odd_card("a"), odd_card("b", model="B", mem_mib=2000)), 375),
        ((odd_card("a", mem_mib=400),), 1000),  # too small: all of it
        ((odd_card("a"), odd_card("b", family=DCU, mem_mib=5000)), 500),  # of another family
        ((odd_card("b", family=DCU),), 0),
    ],
)
def test_a_shape_is_as_large_as_it_is_on_average_on_the_models_of_its_family(
    cards: tuple[Card, ...], size: float
) -> None:
    assert scale_of(demand_of((500, 1, 0, 3)), *cards).size.tolist() == [size]


@pytest.mark.parametrize(
    ("shapes", "room", "cpu", "served"),
    [
        ([(500, 1, 0, 1)], 1000, 0, 1),  # needs none
        ([(500, 1, 2000, 1)], 1000, 4000, 1),
        ([(500, 1, 2000, 1)], 1000, 2000, Fraction(1, 2)),
        ([(500, 1, 2000, 1)], 1000, 0, 0),
        ([(500, 1, 2000, 1)], 1000, -5, 0),
        ([(500, 1, 2000, 1)], 1000, 9e9, 1),
        ([(500, 1, 2000, 1)], 500, 1000, Fraction(1, 2)),
        ([(500, 1, 2000, 1)], 1, 2, Fraction(1, 2)),
        ([(500, 1, 2000, 1)], 0, 2, Fraction(1, 2)),  # no room: whatever is said of it is nothing
        ([(500, 1, 1, 1)], 1000, 1, Fraction(1, 2)),
        ([(1, 1, 1, 1)], 1000, 500, Fraction(1, 2)),
        ([(500, 1, 2000, 1), (250, 1, 0, 2)], 1000, 0, Fraction(1, 2)),
        ([(500, 1, 2000, 1), (250, 1, 4000, 2)], 1000, 4000, Fraction(1, 2) + Fraction(1, 8)),
        ([(500, 1, 2000, 1), (0, 1, 4000, 1)], 1000, 2000, Fraction(1, 2)),  # who takes nothing of a card needs none
    ],
)
def test_of_free_room_so_much_is_served_as_each_shape_has_cpu_for(
    shapes: list[tuple[int, int, int, int]], room: float, cpu: float, served: Fraction
) -> None:
    """Each shape counts by what it takes of cards in all."""
    found = scale_of(demand_of(*shapes), card("n", 0)).served(np.array([float(room)]), np.array([float(cpu)]))
    assert found.tolist() == pytest.approx([float(served)], abs=1e-6)


def test_who_asks_no_cpu_is_served_without_and_who_asks_any_is_not() -> None:
    scale = scale_of(demand_of((500, 1, 0, 1), (300, 1, 1, 1), (200, 1, 2000, 1)), card("n", 0))
    cpu = [one.cpu_milli for one in scale.shapes]
    none, some = scale.able(np.array([0.0, 4000.0]))
    assert dict(zip(cpu, none.tolist(), strict=True)) == {0: PLENTY, 1: 0, 2000: 0}
    assert dict(zip(cpu, some.tolist(), strict=True)) == pytest.approx({0: PLENTY, 1: 4000, 2000: 2}, rel=1e-5)


def test_what_is_told_has_three_decimals() -> None:
    ledger = busy([1000, 777], cpu=7000.0)
    taught(ledger, [(333, 1, 900, ()), (470, 1, 1100, ()), (770, 1, 0, ())] * 9, 1)
    worth = ledger.worth(ask("next", 333, cpu=777), N)
    assert worth is not None
    told = [worth.score, worth.residues, *(each for one in worth.prices for each in (one.worth, one.worth_after))]
    assert told == [round(each, 3) for each in told]
    assert any(each != round(each, 2) for each in told)


def test_what_is_known_of_nodes_stays_when_room_is_made_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them and wider ones, while the prices are the old ones."""
    monkeypatch.setattr("hami.plan.pack.chooser.MANY_SEEN", 1)
    ledger = ledger_of(*[(f"n{number}", 1 + number % 3, "A", 1000.0 + 700 * number) for number in range(6)])
    for number in range(12):
        ledger.decide(ask(f"s{number}", (300, 470)[number % 2], cpu=900))
    for number in (0, 2, 3):
        plan = ledger.fit(one := ask(f"b{number}", 470), NodeName(f"n{number}"))
        assert isinstance(plan, Plan)
        bind(ledger, one, plan)
    ledger.judge_later()

    def told() -> list[object]:
        return [ledger.worth(ask("next", 300, cpu=900), NodeName(f"n{number}")) for number in range(6)]

    before, family = told(), ledger._index.pack._families[GPU]
    for number in range(80):
        ledger.set_node(NodeRecord(NodeName(f"more{number}"), (card(f"more{number}", 0),)))
    ledger.set_node(NodeRecord(NodeName("wide"), tuple(card("wide", place) for place in range(11))))
    assert told() == before
    assert ledger._index.pack._families[GPU] is family
    assert ledger.worth(ask("next", 300, cpu=900), NodeName("wide")) is not None


def test_by_itself_a_card_is_worth_its_seats_for_one_and_six_times_its_residue() -> None:
    scale = scale_of(demand_of((300, 1, 0, 2), (470, 1, 0, 1), (1000, 2, 0, 1)), card("n", 0))
    for room in (0, 299, 300, 470, 700, 999, 1000):
        place = 1001 + room
        seats = room // 300 * 0.5 * 300 + room // 470 * 0.25 * 470
        assert scale.of_card[place] == pytest.approx(seats + 6 * scale.residue[place], rel=1e-6)


def test_what_asks_take_is_remembered_of_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices may hold for ever, and each pod ask for another amount."""
    monkeypatch.setattr("hami.plan.pack.scale.MOST_SHARES", 10)
    scale = scale_of(demand_of((500, 1, 0, 1)), card("n", 0))
    for mem in range(1, 36):
        assert scale.shares(want(mem)).tolist() == [0, mem]
    assert len(scale._shares) <= 10
