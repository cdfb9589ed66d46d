"""Clusters whose cards are of several sizes: every policy sees what the engine sees."""

from random import Random

import numpy as np
import pytest

from hami.sim.traces.cluster import Cluster
from hami.sim.traces.fragments import Fragments
from hami.sim.traces.placers import ENGINE, POLICIES, BaselinePlacer, EnginePlacer, Placer, Refused
from hami.sim.traces.trace import Job, Machine

SIZES = {"L40S": 46_068, "A100": 40_960, "T4": 15_360}


def cluster_of(random: Random) -> Cluster:
    """A host without cards comes first, as it may in any list; cards take two to ten slices."""
    machines = [Machine("host", 8_000, 32_000, 0)]
    for place in range(7):
        model = random.choice(sorted(SIZES))
        slots = random.choice([2, 3, 10])
        machines.append(Machine(f"n{place}", 64_000, 256_000, random.randint(1, 4), model, SIZES[model], 100, slots))
    return Cluster(machines)


def job(random: Random, number: int) -> Job:
    mem = random.choice([1, 1_000, 5_120, 15_360, 15_356, 20_480, 40_960, 46_068])
    cards, core = random.choice([0, 1, 1, 1, 2, 4]), random.choice([0, 0, 10, 33, 50, 100])
    models = random.choice([(), (), ("T4",), ("L40", "A100")])
    percent = random.choice([1, 33, 50, 100]) if cards and random.random() < 0.3 else 0
    mem = mem if cards and not percent else 0
    return Job(f"j{number}", random.choice([0, 500, 6_000]), 100, cards, mem, core, models, card_percent=percent)


def placer_of(cluster: Cluster, policy: str, jobs: list[Job]) -> Placer:
    if policy in ENGINE:
        return EnginePlacer(cluster)
    return BaselinePlacer(cluster, policy, Fragments(cluster, jobs), seed=1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(6))
def test_a_job_is_placed_where_the_engine_agrees_and_refused_only_where_it_fits_nowhere(policy: str, seed: int) -> None:
    random = Random(seed)
    cluster = cluster_of(random)
    jobs = [job(random, number) for number in range(120)]
    placer, running = placer_of(cluster, policy, jobs), []
    for number, one in enumerate(jobs):
        if running and random.random() < 0.2:
            cluster.remove(running.pop(random.randrange(len(running))))
        found = placer.place(one, float(number))
        if isinstance(found, Refused):
            hosts = [cluster.names[row] for row in np.flatnonzero(cluster.hosts(one) & (cluster.cards > 0))]
            assert one.cards == 0 or cluster.ledger.decide(cluster.ask(one), hosts).plan is None, one
        else:
            running.append(one.name)
        assert cluster.overcommitted() == []
    assert len(running) > 5


def test_three_thirds_fill_a_card_that_a_thousand_does_not_divide() -> None:
    cluster = Cluster([Machine("n", 8_000, 32_000, 1, "L40S", 46_068, 100, 10)])
    jobs = [Job(f"j{number}", cards=1, card_mem=15_356, card_core=10) for number in range(3)]
    placer = placer_of(cluster, "best-fit", jobs)
    assert [placer.place(one, 0.0) for one in jobs] == [0, 0, 0]


def test_fragments_measure_a_share_by_the_card_it_would_lie_on() -> None:
    """Half of a T4 is a sixth of an L40S: with 8000 MiB taken, a T4 has no room for 9000 MiB more, an L40S has."""
    machines = [Machine(model, 8_000, 32_000, 1, model, SIZES[model], 100, 10) for model in ("T4", "L40S")]
    cluster = Cluster(machines)
    wanted = Job("typical", cards=1, card_mem=9_000)
    fragments = Fragments(cluster, [wanted])
    for place, model in enumerate(("T4", "L40S")):
        EnginePlacer(cluster).place(Job(f"on-{model}", cards=1, card_mem=8_000, models=(model,)), 0.0)
        assert cluster.room[place, 0] < 1000
    free = cluster.room[:, 0]
    assert fragments.of(np.array([0, 1])).tolist() == [free[0], 0]
