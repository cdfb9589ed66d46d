"""Prices of parts of a card, against every vertex of the linear program and every way to cut a card."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hami.plan.pack import prices
from hami.plan.pack.prices import FULL, pricing, residues


def patterns(sizes: tuple[int, ...], room: int = FULL) -> Iterator[tuple[int, ...]]:
    """Every way to cut `room` into parts of these sizes."""
    if not sizes:
        yield ()
        return
    for number in range(room // sizes[0] + 1):
        for rest in patterns(sizes[1:], room - number * sizes[0]):
            yield (number, *rest)


def fewest_cards(counts: Mapping[int, float]) -> float:
    """How many cards all parts together need at least, in fractions: the best vertex of the dual, all of them tried."""
    sizes = tuple(counts)
    full = [cut for cut in patterns(sizes) if FULL - np.dot(cut, sizes) < min(sizes)]  # the others ask no more
    cuts = [*full, *(tuple(-int(one == other) for one in sizes) for other in sizes)]
    limits = [float(min(cut) >= 0) for cut in cuts]
    best = 0.0
    for chosen in combinations(range(len(cuts)), len(sizes)):
        basis = np.array([cuts[one] for one in chosen], float)
        if abs(np.linalg.det(basis)) < 1e-9:
            continue
        price = np.linalg.solve(basis, np.array([limits[one] for one in chosen]))
        if all(np.dot(cut, price) <= limit + 1e-9 for cut, limit in zip(cuts, limits, strict=True)):
            best = max(best, float(np.dot(price, list(counts.values()))))
    return best


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_all_that_is_asked_costs_the_fewest_cards_that_would_hold_it(seed: int) -> None:
    random = Random(seed)
    sizes = random.sample(range(240, 900, 10), random.choice((1, 2, 3, 4, 4)))
    most = random.choice((300, 1))  # counts are halved now and then
    counts = {size: random.uniform(0.01, most) for size in sorted(sizes)}
    price = residues(counts)
    assert sum(price[size] * count for size, count in counts.items()) >= fewest_cards(counts) - 1e-6
    for cut in patterns(tuple(counts)):  # no card is cut into more than one card's worth
        assert sum(number * price[size] for number, size in zip(cut, counts, strict=True)) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("counts", "worth"),
    [
        ({500: 1}, {499: 0, 500: 0.5, 999: 0.5, 1000: 1}),
        ({250: 9}, {249: 0, 250: 0.25, 500: 0.5, 749: 0.5, 750: 0.75, 1000: 1}),
        ({600: 5, 400: 1}, {399: 0, 400: 0, 600: 1, 1000: 1}),  # parts of 400 are few: they fit beside those of 600
        ({600: 1, 400: 8}, {400: 0.5, 600: 0.5, 800: 1, 1000: 1}),
        ({700: 3, 300: 3}, {1000: 1}),
        ({1000: 7, 1001: 2, 0: 3}, {999: 0, 1000: 1}),  # whole cards and nothing have no part of a card to price
        ({1: 1}, {1: 0.001, 333: 0.333, 999: 0.999, 1000: 1}),
    ],
)
def test_a_residue_is_worth_what_can_be_cut_out_of_it(counts: dict[int, float], worth: dict[int, float]) -> None:
    price = residues(counts)
    assert {room: price[room] for room in worth} == pytest.approx(worth, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(150, 999), st.integers(1, 500), min_size=1, max_size=4))
def test_a_room_is_worth_the_dearest_set_of_parts_that_it_holds(counts: dict[int, int]) -> None:
    price = residues({size: float(count) for size, count in counts.items()})
    for room in (0, 149, 350, 640, 777, 999):
        dearest = max(
            sum(number * price[size] for number, size in zip(cut, counts, strict=True))
            for cut in patterns(tuple(counts), room)
        )
        assert price[room] == pytest.approx(dearest, abs=1e-6)


def test_of_more_sizes_than_are_looked_at_the_rare_ones_have_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "MOST_SIZES", 2)
    price = residues({100: 1, 500: 8, 800: 5})
    assert price[100] == 0
    assert price[500] == pytest.approx(0.5)
    assert price[800] == pytest.approx(1)


def test_the_forty_most_frequent_sizes_have_prices() -> None:
    """Sizes above a half go with no other, so each costs a card; the one that is asked least often is left out."""
    price = residues({size: float(size != 501) + 1 for size in range(501, 542)})
    assert (price[501], price[502]) == (0, 1)
    assert residues(dict.fromkeys(range(502, 542), 1.0))[502] == 1


@pytest.mark.parametrize(
    ("counts", "rounds"),
    [
        ({}, 0),
        ({500: 1}, 1),  # the first prices are right at once
        ({300: 7}, 1),
        ({600: 5, 400: 1}, 2),
        ({600: 1, 400: 8}, 2),
        ({810: 1, 650: 3, 470: 2, 320: 9}, 2),
    ],
)
def test_prices_are_found_in_few_rounds(counts: dict[int, float], rounds: int) -> None:
    assert len(list(pricing(counts))) == rounds


@pytest.mark.parametrize(
    "counts", [{125: 1.9, 195: 2.9, 205: 2.4, 730: 0.07}, {95: 0.9, 110: 1.5, 250: 0.04, 355: 0.74}]
)
def test_parts_that_just_fill_a_card_cost_no_more_than_one(counts: dict[int, float]) -> None:
    """Eight of 125, four of 250: no other cut would keep their price down here."""
    price = residues(counts)
    for size in counts:
        assert price[size] * (FULL // size) <= 1 + 1e-6
