"""Refusals of whole nodes: one reason, no cards, and the words for it."""

import pytest

from hami.model.refusal import Reason
from hami.plan.exact import refuse

from .builders import NVIDIA


def test_a_reason_that_is_no_card_s_counts_once() -> None:
    for refusal, reason in (
        (refuse.unusable("silent"), Reason.UNREGISTERED),
        (refuse.no_family(NVIDIA), Reason.NO_SUCH_FAMILY),
        (refuse.too_few(3, 1), Reason.INSUFFICIENT_CARDS),
        (refuse.UNKNOWN_NODE, Reason.UNREGISTERED),
        (refuse.NOT_TOGETHER, Reason.CARDS_PARTLY_FIT),
    ):
        assert (refusal.counts, refusal.total, refusal.reason) == (((reason, 1),), 0, reason)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UNKNOWN_NODE", "node unregistered"),
        (
            "NOT_TOGETHER",
            "AllocatedCardsInsufficientRequest: each container fits by itself, but not all that run at the same time",
        ),
    ],
)
def test_what_is_said_of_a_whole_node(name: str, text: str) -> None:
    assert getattr(refuse, name).text == text
