"""Names in two lists are the same names in the same order, whichever way of copying them is the fastest."""

from random import Random

import numpy as np
import pytest

from hami.plan import parted as module
from hami.plan.parted import FEW, VERY_FEW, parted

NAMES = [f"n{place}" for place in range(6 * VERY_FEW)]


@pytest.mark.parametrize(
    "out",
    [
        [],
        [0],
        [len(NAMES) - 1],
        [0, 1, len(NAMES) - 1],
        [5, 6, 9],
        *(sorted(Random(count).sample(range(len(NAMES)), count)) for count in (5, 6, 7, 31, 32, 33, 63, 64, 65, 95)),
        list(range(len(NAMES))),
    ],
)
def test_each_name_is_in_one_list_and_its_order_stays(out: list[int]) -> None:
    """The numbers are those on both sides of where another way is taken."""
    kept, gone = parted(NAMES, np.array(out, np.int64))
    assert gone == [NAMES[place] for place in out]
    assert kept == [name for place, name in enumerate(NAMES) if place not in out]


def test_of_no_names_none_are_kept_and_none_go() -> None:
    assert parted([], np.array([], np.int64)) == ([], [])
    assert parted(["a"], np.array([], np.int64)) == (["a"], [])
    assert parted(["a"], np.array([0])) == ([], ["a"])


def test_few_is_more_than_very_few() -> None:
    assert 1 < FEW < VERY_FEW


@pytest.mark.parametrize(
    ("out", "ways"),
    [
        (5, ["between"]),
        (6, ["those that go"]),
        (31, ["those that go"]),
        (32, []),
        (64, []),
        (65, ["those that stay"]),
        (96, ["those that stay"]),
    ],
)
def test_names_are_picked_one_by_one_only_where_they_are_few(
    out: int, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    picked, at = module._picked, module._at

    def by_place(names: list[str], places: np.ndarray) -> list[str]:
        taken.append("those that go" if len(places) == out and out < 64 else "those that stay")
        return at(names, places)

    monkeypatch.setattr(module, "_picked", lambda *given: taken.append("between") or picked(*given))
    monkeypatch.setattr(module, "_at", by_place)
    parted(NAMES, np.arange(out))
    assert taken == ways
