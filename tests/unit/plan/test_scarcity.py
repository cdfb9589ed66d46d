"""What a seat weighs where pods leave again: the more the fewer there are, within bounds."""

import numpy as np
import pytest

from .packs import card, demand_of, scale_of


@pytest.mark.parametrize(
    ("seats", "cards", "times"),
    [
        (39, 1000, 1),  # 40 of half a card: a fiftieth of all
        (5000, 1000, 1),
        (19, 1000, 2),
        (0, 1000, 40),
        (0, 2500, 100),
        (0, 9000, 100),
        (0, 1, 1),
        (0, 0, 1),
    ],
)
@pytest.mark.parametrize("turnover", [0.0, 0.5, 1.0])
def test_a_seat_weighs_more_once_its_shape_could_use_less_than_a_fiftieth_of_the_cards(
    seats: float, cards: int, times: float, turnover: float
) -> None:
    scale = scale_of(demand_of((500, 1, 0, 1)), card("n", 0))
    scale.turnover = turnover
    scale.weigh_scarcity(np.array([seats], np.float32), cards)
    assert scale.weight.tolist() == pytest.approx([500 * (1 + turnover * (times - 1))])


@pytest.mark.parametrize(("seats", "cards", "times"), [(5000, 1000, 33), (0, 2600, 40), (0, 9000, 100)])
def test_a_seat_for_several_cards_weighs_threefold_and_where_pods_leave_33_times_that_at_least(
    seats: float, cards: int, times: float
) -> None:
    scale = scale_of(demand_of((650, 2, 0, 1)), card("n", 0))
    assert scale.weight.tolist() == [3 * 2 * 650]
    scale.turnover = 1.0
    scale.weigh_scarcity(np.array([seats], np.float32), cards)
    assert scale.weight.tolist() == pytest.approx([3 * 2 * 650 * times])


def test_what_is_scarce_is_looked_at_from_the_first_weight_each_time() -> None:
    """Looking twice makes nothing scarcer, and a card by itself is worth what its seats weigh now."""
    scale = scale_of(demand_of((500, 1, 0, 1)), card("n", 0))
    scale.turnover = 1.0
    for _ in range(2):
        scale.weigh_scarcity(np.array([19], np.float32), 1000)
    assert scale.weight.tolist() == [1000]
    assert scale.of_card[1001 + 1000] == pytest.approx(2 * 1000 + 6 * 1000)


def test_of_the_smallest_shape_one_seat_is_a_thousandth_of_a_card() -> None:
    scale = scale_of(demand_of((1, 1, 0, 1)), card("n", 0))
    scale.turnover = 1.0
    scale.weigh_scarcity(np.array([0], np.float32), 1)
    assert scale.weight.tolist() == [20], "a fiftieth of a card is twenty times that"
