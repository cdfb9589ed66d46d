"""Which cards an ask takes, against sorting them one by one; and what hosts without such asks are told."""

from random import Random

import numpy as np
import pytest

from hami.ledger.records import PodRecord
from hami.model.ids import CardId, NodeName
from hami.model.plan import Charge
from hami.plan.fleet.columns import Longs
from hami.plan.pack import Pack
from hami.plan.pack.aside import LAST
from hami.plan.pack.lend import FEW, Lending
from hami.plan.pack.scale import LEVELS, Scale

from .builders import want
from .packs import GPU, ask, card, demand_of, ledger_of, scale_of

CARDS = (card("n", 0), card("n", 1, "B"))
SHAPES = ((470, 1, 0, 5), (300, 1, 0, 3), (110, 1, 0, 3), (650, 2, 0, 2))


def taken(scale: Scale, lending: Lending, places: list[int], cards: int) -> list[int] | None:
    """By what each loses to six digits, then the fullest, then the first."""
    ranked = []
    for number, place in enumerate(places):
        room, share = place % LEVELS, int(lending.shares(np.array([place]))[0])
        if room and room >= share:
            loss = scale.of_card[place] - scale.of_card[place - share]
            ranked.append((round(float(loss) * 1e6), room, number))
    return [number for _, _, number in sorted(ranked)[:cards]] if len(ranked) >= cards else None


def random_places(random: Random, cards: int, rows: int) -> Longs:
    """[card][row]: rooms of two kinds of cards, many alike, some without any."""
    rooms = [0, 1, 2, 300, 301, 470, 471, 500, 650, 999, 1000]
    return np.array(
        [[random.choice((1, 2)) * LEVELS + random.choice(rooms) for _ in range(rows)] for _ in range(cards)]
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cards", [1, 2, 3, FEW, FEW + 1, 6])
def test_those_are_taken_that_lose_least_of_equal_ones_the_fullest_then_the_first(seed: int, cards: int) -> None:
    random, scale = Random(seed), scale_of(demand_of(*SHAPES), *CARDS)
    if seed % 2:  # losses that differ by parts of a thousandth of a card
        scale.of_card = np.cumsum(np.random.default_rng(seed).random(len(scale.of_card)) / 1000)
    mem = random.choice((0, 1, 2, 110, 300, 470, 777))
    lending, place = Lending(scale, want(mem, family=GPU)), random_places(random, random.choice((cards, 8)), 40)
    found, able = lending.cards(place, cards)
    assert found.shape == (cards, 40)
    for row in range(40):
        due = taken(scale, lending, place[:, row].tolist(), cards)
        assert bool(able[row]) == (due is not None)
        if due is not None:
            assert found[:, row].tolist() == due


def test_a_node_of_fewer_cards_than_are_asked_has_none() -> None:
    lending = Lending(scale_of(demand_of(*SHAPES), *CARDS), want(300, family=GPU))
    found, able = lending.cards(random_places(Random(1), 2, 5), 3)
    assert found.shape == (3, 5)
    assert not able.any()


@pytest.mark.parametrize("cards", [1, 2, 3])
@pytest.mark.parametrize("others", [0, 10, 100])
@pytest.mark.parametrize("most", [1, 5, 39])
def test_those_rows_promise_most_whose_first_card_loses_least_if_they_have_enough(
    cards: int, most: int, others: int
) -> None:
    scale = scale_of(demand_of(*SHAPES), *CARDS)
    lending, place = Lending(scale, want(470, family=GPU)), random_places(Random(cards), 3, 40)
    rows = np.array(sorted(Random(most).sample(range(40 + others), 40)))
    all_places = random_places(Random(others), 3, 40 + others)
    all_places[:, rows] = place
    first, able = lending.promising(all_places, rows, cards, most, np.zeros_like(all_places))
    every = range(40)
    due = {row: taken(scale, lending, place[:, row].tolist(), cards) for row in every}
    assert able.tolist() == [due[row] is not None for row in every]
    assert 0 < sum(able) < 40

    def loss(row: int) -> tuple[int, int, int]:
        chosen = due[row]
        if chosen is None:
            return 1, 0, 0
        at = int(place[chosen[0], row])
        lost = scale.of_card[at] - scale.of_card[at - 470]
        return 0, round(float(lost) * 1e6), at % LEVELS

    assert len(first) == len(set(first.tolist())) == most
    assert sorted(map(loss, first.tolist())) == sorted(map(loss, every))[:most]


@pytest.mark.parametrize("seed", range(5))
def test_what_a_pod_without_cards_costs_follows_what_is_used(seed: int) -> None:
    """As a newcomer would say it, who knows nothing but what there is now."""
    random = Random(seed)
    ledger = ledger_of(*[(f"n{number}", random.choice((1, 2)), "A", random.choice((4e3, 16e3))) for number in range(9)])
    for number in range(8):
        ledger.decide(ask(f"s{number}", (470, 1000)[number % 2], 1, 4000))
    pack, columns, rows = ledger._index.pack, ledger._index.columns, np.arange(-1, 9)
    for step in range(12):
        node = NodeName(f"n{random.randrange(9)}")
        charge = Charge(CardId(f"{node}/0"), 1, random.choice((100, 470)), 0)
        ledger.set_pod(PodRecord(ask(f"old{step}", 1).pod, node, charges=(charge,)))
        ledger.set_host(NodeName(f"n{random.randrange(9)}"), random.choice((500.0, 4e3, 9e3)))
        newcomer = Pack()
        newcomer.demand = pack.demand
        told, due = pack.host_gains(1500, columns, rows), newcomer.host_gains(1500, columns, rows)
        assert told is not None
        assert due is not None
        assert told[1:].tolist() == pytest.approx(due[1:].tolist(), abs=0.01)


@pytest.mark.parametrize("cards", [1, FEW])
def test_for_a_few_cards_nothing_is_sorted(cards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = scale_of(demand_of(*SHAPES), *CARDS)
    lending, place = Lending(scale, want(300, family=GPU)), random_places(Random(2), 8, 40)
    found, _ = lending.cards(place, cards)
    monkeypatch.setattr("hami.plan.pack.lend.np.sort", None)
    assert lending.cards(place, cards)[0].tolist() == found.tolist()


@pytest.mark.parametrize("times", [1, 2])
def test_rows_that_are_late_come_after_all_others_with_room_and_before_those_without(times: int) -> None:
    lending = Lending(scale_of(demand_of(*SHAPES), *CARDS), want(470, family=GPU))
    place = np.full((1, 4), LEVELS + 1000)
    place[0, 3] = LEVELS + 400  # too full
    late = np.array([times * LAST, 0.0, times * LAST, 0.0])
    for most, due in ((1, {1}), (3, {0, 1, 2})):
        first, able = lending.promising(place, np.arange(4), 1, most, np.zeros_like(place), late=late)
        assert set(first.tolist()) == due
    assert able.tolist() == [True, True, True, False]
