"""Arrivals of a steady load: as much as was asked for, once the longest job has lived, the same for everybody."""

import pytest
from tests.unit.sim.traces import MACHINES, share, whole

from hami.model.errors import Malformed
from hami.sim.traces.steady import Load, lifetime, steady
from hami.sim.traces.trace import Job

JOBS = (
    share("s", 500, arrives=5.0, leaves=105.0),
    whole("w", 2, arrives=0.0, leaves=400.0),
    Job("cpu", cpu_milli=1000, arrives=0.0, leaves=50.0),
    whole("long", arrives=0.0, leaves=1e9),
)
LOAD = Load(0.9, measured=300_000, longest=1000)


def test_as_much_is_asked_for_as_was_said() -> None:
    jobs = steady(JOBS, MACHINES, LOAD, 1)
    for start in (1000, 101_000, 201_000):
        work = sum(
            job.cards
            * job.card_mem
            / 1000
            * max(0, min(job.arrives + lifetime(job), start + 100_000) - max(job.arrives, start))
            for job in jobs
        )
        assert work / 100_000 == pytest.approx(0.9 * 8, rel=0.1)


def test_no_life_is_longer_than_was_said() -> None:
    jobs = steady(JOBS, MACHINES, LOAD, 1)
    assert {round(lifetime(job)) for job in jobs} == {50, 100, 400, 1000}
    assert 0 < jobs[0].arrives < jobs[-1].arrives < LOAD.end


def test_the_seed_fixes_the_arrivals_whatever_the_order_of_the_list() -> None:
    assert steady(JOBS, MACHINES, LOAD, 3) == steady(JOBS[::-1], MACHINES, LOAD, 3)
    assert steady(JOBS, MACHINES, LOAD, 3) != steady(JOBS, MACHINES, LOAD, 4)
    names = [job.name for job in steady(JOBS, MACHINES, LOAD, 3)]
    assert len(set(names)) == len(names)


def test_a_list_without_work_is_refused() -> None:
    with pytest.raises(Malformed, match="life time"):
        steady((Job("cpu", cpu_milli=1, leaves=5.0),), MACHINES, LOAD, 1)
