"""What the rows of PyTorch programs say of what was measured: `tests/gpu/torch_*.py`, given made-up figures."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GPU = Path(__file__).resolve().parents[1] / "gpu"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(GPU))
    import bench
    import torch_cost
    import torch_live
    import torch_single
    import torch_tenants

    yield Rows(bench, torch_cost, torch_live, torch_single, torch_tenants)
    for name in [
        name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(GPU))
    ]:
        del sys.modules[name]


class Rows:
    """Each section's judge, and the verdicts it comes to."""

    def __init__(self, bench: Any, cost: Any, live: Any, single: Any, tenants: Any) -> None:
        self.cost, self.single_rows, self._bench, self._live = cost, single, bench, live
        self._tenants = tenants

    def paired(self, percent: tuple[float, float], scatter: float) -> list[bool | None]:
        """A thousand rounds in which so many percent are lost without a limit and at 99, none where hardly measured."""
        dice = random.Random(7)
        factors = (1.0, *(1 + each / 100 for each in percent), 1.0)
        rounds = [
            [tuple(5e-3 * each * dice.gauss(1, scatter) for each in factors) for _ in range(250)] for _ in range(4)
        ]
        bench = self._kept()
        self.cost.judge(bench, "train", rounds)
        return [row.ok for row in bench.rows[:2]]

    def single(self, free: list[float], held: list[float], limit: int = 20, faster: float = 1.0) -> bool | None:
        """
        Rates in turn, one without a limit on each side of one with; 100 a second are a hundredth of the card without a
        limit, and with one, where the card has rested, so many times as many are.
        """
        verdict: bool | None = self.single_all(free, held, limit, faster)[0].ok
        return verdict

    def single_all(self, free: list[float], held: list[float], limit: int, faster: float = 1.0) -> list[Any]:
        slices = [self._live.Slice(rate, 1e5, 1e-4) for rate in free]
        beside = [
            self.single_rows.Beside(self._live.Slice(rate, 1e5, 1e-4 / faster), (slices[at], slices[at + 1]))
            for at, rate in enumerate(held)
        ]
        bench = self._kept()
        self.single_rows.judge(bench, "layer", {limit: beside})
        return list(bench.rows)

    def turns_of(self, rates: list[float]) -> dict[int, list[tuple[float, tuple[float, ...]]]]:
        """What `single` compares with what."""
        had = self.single_rows.neighbours([self._live.Slice(rate, 0) for rate in rates])
        return {
            limit: [(each.held.rate, tuple(one.rate for one in each.free)) for each in some]
            for limit, some in had.items()
        }

    def slice(self, queued_s: float) -> Any:
        return self._live.Slice(100.0, 0, queued_s)

    def tenants(
        self,
        free: list[float],
        capped: list[float],
        caps: tuple[int, ...] = (30, 70),
        works: tuple[str, ...] = ("train",) * 2,
    ) -> list[bool | None]:
        """Parts of what each has alone, where it keeps the card busy for 95 of a hundred."""
        slices = [[[self._live.Slice(part * 500, 0)] * 4 for part in some] for some in (free, capped)]
        count = len(caps)
        crowd = self._tenants.Crowd("two", works, caps, [0.95] * count, [500.0] * count, *slices)
        bench = self._kept()
        self._tenants.judge(bench, crowd)
        return [row.ok for row in bench.rows]

    def _kept(self) -> Any:
        return self._bench.Bench(Path("/nowhere"), 1, quick=False, simulated=None)


def test_what_the_library_costs_is_said_only_where_the_whole_interval_says_it(rows: Rows) -> None:
    assert rows.paired((0.05, 0.5), scatter=0.01) == [True, True]
    assert rows.paired((0.6, 2.0), scatter=0.01) == [False, False]
    assert rows.paired((0.2, 1.0), scatter=0.08) == [None, None]


def test_a_round_in_which_any_block_had_no_host_is_left_out(rows: Rows) -> None:
    calm = [(1.0, 1.0, 1.0)] * 8
    assert rows.cost.undisturbed([*calm, (2.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 1.0, 2.0)]) == calm


def test_a_tenant_is_held_to_what_its_limit_lets_it_have_and_not_below(rows: Rows) -> None:
    free = [0.48, 0.47]
    assert rows.tenants(free, [0.316, 0.63]) == [True, True]
    assert rows.tenants(free, [0.38, 0.57])[0] is False
    assert rows.tenants(free, [0.25, 0.70])[0] is False


def test_what_others_leave_of_the_card_is_had_though_the_limits_add_up_to_more(rows: Rows) -> None:
    assert rows.tenants([0.48, 0.47], [0.316, 0.55]) == [False, False]
    assert rows.tenants([0.9, 0.9], [0.9, 0.85], caps=(99, 99)) == [False, False]
    assert rows.tenants([0.9, 0.9], [0.9, 0.89], caps=(99, 99)) == [True, True]


def test_one_that_cannot_use_what_another_leaves_is_to_lose_nothing(rows: Rows) -> None:
    free = [0.48, 0.80]
    light: Any = {"caps": (99, 70), "works": ("small", "train")}
    assert rows.tenants(free, [0.48, 0.735], **light) == [True, True]
    assert rows.tenants(free, [0.44, 0.735], **light) == [False, False]
    assert rows.tenants(free, [0.48, 0.80], **light)[0] is False


def test_one_that_was_slower_alone_than_beside_others_is_held_to_its_limit_and_not_to_that(rows: Rows) -> None:
    layers: Any = {"works": ("layer", "layer")}
    assert rows.tenants([0.29, 1.25], [0.29, 1.24], caps=(30, 120), **layers) == [True, True]
    assert rows.tenants([0.29, 1.25], [0.29, 1.24], caps=(30, 100), **layers)[0] is False


def test_a_slice_under_a_limit_is_compared_with_those_just_before_and_after_it(rows: Rows) -> None:
    told = rows.turns_of([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    assert told[99] == [(1, (0, 2)), (9, (8, 10))]
    assert told[20] == [(7, (6, 8)), (15, (14, 16))]


def test_a_program_bound_by_its_host_loses_nothing_where_the_host_itself_was_slow(rows: Rows) -> None:
    """A limit of 20 lets it have 2000 a second; its host makes 900 to 4000."""
    free = [4000, 1000, 1000, 3000, 4000, 900, 900, 3500, 3000]
    due = [1500, 1000, 1500, 2000, 1450, 900, 1450, 2000]
    assert rows.single(free, [float(each) for each in due]) is True
    assert rows.single(free, [each * 0.9 for each in due]) is False
    assert rows.single(free, [1650, 850, 1700, 1800, 1650, 800, 1600, 1800]) is None


def test_a_program_near_its_limit_is_held_to_it(rows: Rows) -> None:
    free = [2100.0] * 9
    assert rows.single(free, [2000, 1990, 2010, 2000, 1980, 2020, 2000, 2000]) is True
    assert rows.single(free, [2100, 2110, 2090, 2100, 2100, 2110, 2100, 2090]) is False
    assert rows.single(free, [1940, 1930, 1950, 1940, 1935, 1945, 1940, 1940]) is False
    assert rows.single(free, [2300, 1700, 2250, 1650, 2300, 1700, 2200, 1700]) is None
    assert rows.single(free, [2100, 1600, 2150, 1600, 2100, 1650, 2150, 1600]) is None


def test_more_of_the_card_than_one_point_above_the_limit_is_too_much(rows: Rows) -> None:
    free = [9400.0] * 9
    assert rows.single(free, [8090, 8080, 8095, 8085, 8090, 8080, 8095, 8085], limit=80) is True
    assert rows.single(free, [8360, 8350, 8365, 8355, 8360, 8350, 8365, 8355], limit=80) is False


def test_a_card_that_is_faster_when_it_may_rest_is_judged_by_its_time_and_not_by_its_speed(rows: Rows) -> None:
    free = [9400.0] * 9
    held = [8580.0, 8590, 8570, 8580, 8575, 8585, 8580, 8590]
    assert rows.single(free, held, limit=80) is False
    assert rows.single(free, held, limit=80, faster=1.07) is True
    assert rows.single(free, [7900, 7910, 7890, 7900, 7905, 7895, 7900, 7900], limit=80, faster=1.07) is False


def test_a_program_that_nothing_holds_is_found_by_the_same_check(rows: Rows) -> None:
    held = [8000.0, 7990, 8010, 8000, 8005, 7995, 8000, 8000]
    found, control = rows.single_all([9400.0] * 9, held, 80)
    assert (found.ok, control.ok) == (True, True)
    assert control.name == "control: layer without a limit, judged as at 80"
    assert len(rows.single_all([5000.0] * 9, [5000.0] * 8, 80)) == 1  # it never comes near the limit


def test_a_look_whose_host_was_away_says_nothing_of_what_a_step_takes(rows: Rows) -> None:
    slices = [rows.slice(1e-4), rows.slice(float("nan")), rows.slice(1.2e-4), rows.slice(1.1e-4)]
    assert rows.single_rows.typical(slices) == pytest.approx(1.1e-4)


def test_a_limit_far_above_what_a_program_needs_takes_nothing_from_it(rows: Rows) -> None:
    free = [2000.0] * 9
    assert rows.single(free, [1990, 2010, 2000, 1995, 2000, 2005, 1990, 2000], limit=80) is True
    assert rows.single(free, [1930, 1920, 1935, 1925, 1930, 1930, 1925, 1930], limit=80) is False
