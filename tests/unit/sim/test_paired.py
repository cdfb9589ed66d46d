"""The test that the benchmark of packing relies on, against what one can count by hand."""

import pytest
from benchmarks.paired import compared


def test_a_lead_on_every_seed_is_as_unlikely_as_all_coins_falling_alike() -> None:
    ours = {seed: 96.0 + seed / 10 for seed in range(10)}
    lead = compared(ours, {seed: 95.0 + seed / 20 for seed in range(10)})
    assert lead is not None
    assert (lead.p, lead.seeds) == (2 / 1024, 10)
    assert lead.mean == pytest.approx(1.225)


def test_one_difference_among_equals_proves_nothing() -> None:
    lead = compared({1: 1.0, 2: 5.0, 3: 2.0}, {1: 1.0, 2: 4.0, 3: 2.0})
    assert lead is not None
    assert lead.p == 1.0


def test_a_lost_seed_counts_against() -> None:
    lead = compared({1: 2.0, 2: 3.0, 3: 4.0}, {1: 1.0, 2: 1.0, 3: 7.0})
    assert lead is not None
    assert (lead.mean, lead.p) == (0.0, 1.0)
    # differences 1, 2, 3, -1: of 16 choices of signs, sums of 5 or more, or -5 or less, are six
    other = compared({1: 1.0, 2: 2.0, 3: 3.0, 4: -1.0}, dict.fromkeys(range(1, 5), 0.0))
    assert other is not None
    assert other.p == 6 / 16


def test_only_seeds_of_both_are_compared() -> None:
    lead = compared({1: 1.0, 9: 100.0}, {1: 0.5, 8: 100.0})
    assert lead is not None
    assert (lead.mean, lead.seeds) == (0.5, 1)
    assert compared({1: 1.0}, {2: 1.0}) is None


def test_more_seeds_than_can_be_tried_with_every_sign_are_all_counted() -> None:
    ours = {seed: 1.0 if seed % 2 else 2.0 for seed in range(40)}
    lead = compared(ours, dict.fromkeys(range(40), 0.0))
    assert lead is not None
    assert (lead.seeds, lead.mean) == (40, 1.5)
    assert lead.p < 1e-5
    # 30 up and 10 down: by the binomial distribution 2 x P(30 or more of 40) = 0.00222
    mixed = compared({seed: 1.0 if seed % 4 else -1.0 for seed in range(40)}, dict.fromkeys(range(40), 0.0))
    assert mixed is not None
    assert mixed.p == pytest.approx(0.00222, abs=0.0003)


def test_the_interval_is_that_of_a_mean_of_as_many_seeds() -> None:
    lead = compared({seed: float(seed % 2) for seed in range(100)}, dict.fromkeys(range(100), 0.0))
    assert lead is not None
    # of 100 fair coins the mean is 0.5 with a standard error of 0.05
    assert (lead.low, lead.high) == (pytest.approx(0.4, abs=0.015), pytest.approx(0.6, abs=0.015))
