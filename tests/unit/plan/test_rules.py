"""One card's own rules: what the numbers in them mean. That all of them hold together is for `test_oracle`."""

import pytest

from hami.model.refusal import Reason
from hami.plan.exact.rules import room

from .builders import card, want


@pytest.mark.parametrize(
    ("asked", "of_card", "reason"),
    [
        (100, 100, Reason.EXCLUSIVE_CONFLICT),
        (99, 100, None),
        (100, 101, None),
        (101, 101, None),
        (100, 200, None),
        (101, 100, Reason.INSUFFICIENT_CORE),
    ],
)
def test_who_asks_for_all_100_percent_of_a_card_wants_it_alone(asked: int, of_card: int, reason: Reason | None) -> None:
    """Beside somebody who has a slot and no share of the cores."""
    assert room(want(1000, cores=asked), card(core_percent=of_card), (1, 1000, 0), False) == reason
