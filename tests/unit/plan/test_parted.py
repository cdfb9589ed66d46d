"""Names in two lists are the same names in the same order, whichever way of copying them is the fastest."""

from random import Random

import msgspec
import numpy as np
import pytest

from hami.ledger.sent import Sent
from hami.plan.fleet import parted as module
from hami.plan.fleet.parted import VERY_FEW, parted

NAMES = [f"n{place}" for place in range(6 * VERY_FEW)]
LONG = [f"node-{place:05d}" for place in range(6 * VERY_FEW)]


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
    sent = Sent.of(msgspec.json.encode(LONG))
    assert sent is not None
    kept, gone = parted(sent, np.array(out, np.int64))
    assert isinstance(kept, Sent)
    assert isinstance(gone, Sent)
    assert list(gone) == [LONG[place] for place in out]
    assert list(kept) == [name for place, name in enumerate(LONG) if place not in out]


def test_of_no_names_none_are_kept_and_none_go() -> None:
    assert parted([], np.array([], np.int64)) == ([], [])
    assert parted(["a"], np.array([], np.int64)) == (["a"], [])
    assert parted(["a"], np.array([0])) == ([], ["a"])


@pytest.mark.parametrize(("out", "picked_one_by_one"), [(5, True), (6, False), (96, False)])
def test_names_are_picked_one_by_one_only_where_very_few_go(
    out: int, picked_one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    picked = module._picked
    monkeypatch.setattr(module, "_picked", lambda names, places: taken.append(len(places)) or picked(names, places))
    parted(NAMES, np.arange(out))
    assert bool(taken) == picked_one_by_one
