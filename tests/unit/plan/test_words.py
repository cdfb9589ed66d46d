"""An ask as people read it."""

import pytest

from hami.model.ask import CardAsk
from hami.plan.words import spoken

from .builders import want


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (want(8000), "1 x 8000 MiB"),
        (want(0), "1 x 0 MiB"),
        (want(8000, cores=30), "1 x 8000 MiB, 30 %"),
        (want(percent=50, cards=2), "2 x 50 % memory"),
        (want(1, use_types=("A100", "H100")), "1 x 1 MiB of A100,H100"),
        (want(1, cores=5, use_types=("A100", "V100")), "1 x 1 MiB, 5 % of A100,V100"),
    ],
)
def test_an_ask_in_words(ask: CardAsk, words: str) -> None:
    assert spoken(ask) == words
