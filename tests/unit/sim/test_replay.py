import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.sim.traces import MACHINES, random_jobs, share, whole

from hami.model.ask import NodePolicy
from hami.model.errors import Malformed
from hami.sim import charts, experiment, files, report
from hami.sim.cluster import Cluster
from hami.sim.experiment import Setting
from hami.sim.fragments import Fragments, typical
from hami.sim.placers import ENGINE, POLICIES, BaselinePlacer, EnginePlacer, Refused
from hami.sim.replay import Outcome, Waits, departures, inflation
from hami.sim.trace import Job, Machine


def placer_of(cluster: Cluster, policy: str, fragments: Fragments) -> EnginePlacer | BaselinePlacer:
    if policy in ENGINE:
        return EnginePlacer(cluster, host_jobs="pack")
    return BaselinePlacer(cluster, policy, fragments, 1)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_no_replay_ever_takes_more_than_there_is(policy: str, seed: int) -> None:
    random = Random(seed)
    jobs = random_jobs(random, 40)
    cluster = Cluster(MACHINES, NodePolicy(policy) if policy in ENGINE else NodePolicy.BINPACK)
    fragments = Fragments(cluster, jobs)
    placer = placer_of(cluster, policy, fragments)
    for number, job in enumerate(jobs):
        row = placer.place(job, float(number))
        assert cluster.overcommitted() == []
        if not isinstance(row, Refused) and random.random() < 0.3:
            assert cluster.remove(job.name) == row
    assert cluster.ledger.recount() == []
    used = sum(job.job.cards * job.job.card_mem for job in cluster.placed.values()) / 1000
    assert cluster.allocated() == pytest.approx(used)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_answer(policy: str) -> None:
    setting = Setting(MACHINES, tuple(random_jobs(Random(3), 60)))
    first, second = (experiment.run(setting, policy, 5) for _ in range(2))
    assert (first.gpu_allocation_percent, first.placed, first.failures, first.curve) == (
        second.gpu_allocation_percent, second.placed, second.failures, second.curve,
    )  # fmt: skip
    assert first.placed + first.failed == len(experiment.inflate(setting.jobs, MACHINES, 1.3, 5))


def test_a_job_for_one_model_goes_there_or_nowhere() -> None:
    cluster = Cluster(MACHINES, NodePolicy.PACK)
    placer = EnginePlacer(cluster)
    rows = [placer.place(whole(f"w{number}", 4, models=("T4",)), 0) for number in range(2)]
    assert rows[0] == 2
    assert rows[1] == Refused("NodeInsufficientDevice")


def test_failures_say_what_was_short() -> None:
    cluster = Cluster(MACHINES, NodePolicy.PACK)
    placer = EnginePlacer(cluster)
    assert placer.place(Job("cpu", cpu_milli=100_000), 0) == Refused("host CPU or memory")
    assert placer.place(whole("many", 8), 0) == Refused("NodeInsufficientDevice")


def test_jobs_without_cards_leave_hosts_with_cards_alone() -> None:
    cluster = Cluster(MACHINES, NodePolicy.PACK)
    placer = EnginePlacer(cluster, host_jobs="pack")
    placer.place(Job("w", cpu_milli=8000, cards=1, card_mem=1000, models=("T4",)), 0)
    assert placer.place(Job("cpu", cpu_milli=1000), 0) == 3


def test_what_does_not_fit_waits_until_something_ends() -> None:
    jobs = [whole("first", 4, arrives=0.0, leaves=10.0), whole("second", 4, arrives=1.0, leaves=4.0)]
    outcome = experiment.run(Setting(MACHINES, tuple(jobs), departures=True), "pack", 1)
    assert (outcome.placed, outcome.failed) == (2, 0)
    assert outcome.waits is not None
    assert (outcome.waits.mean, outcome.waits.waited) == (4.5, 1)  # nine seconds for the second


def test_who_has_no_patience_left_fails() -> None:
    jobs = (
        whole("first", 4, arrives=0.0, leaves=10.0),
        whole("second", 4, arrives=1.0, leaves=4.0),
        share("other", 100, arrives=11.0, leaves=12.0),
    )
    tired = experiment.run(Setting(MACHINES, (*jobs[:1], jobs[1]), departures=True, patience=5.0), "pack", 1)
    assert (tired.placed, tired.failed) == (2, 0)  # tried once more when the first ends, and then it fits
    never = whole("never", 8, arrives=0.0, leaves=1.0)
    outcome = experiment.run(Setting(MACHINES, (*jobs, never), departures=True, patience=5.0), "pack", 1)
    assert (outcome.placed, outcome.failed) == (3, 1)


def test_compression_makes_arrivals_denser_and_leaves_lives_alone() -> None:
    (job,) = experiment.compressed([whole("w", arrives=100.0, leaves=130.0)], 10)
    assert (job.arrives, job.leaves) == (10.0, 40.0)


def test_what_leaves_gives_everything_back() -> None:
    cluster = Cluster(MACHINES, NodePolicy.PACK)
    jobs = random_jobs(Random(1), 30)
    fragments = Fragments(cluster, jobs)
    departures(cluster, EnginePlacer(cluster), jobs, fragments, lambda _done, _all: None, patience=float("inf"))
    for name in list(cluster.placed):
        cluster.remove(name)
    assert cluster.allocated() == 0
    assert cluster.cpu.tolist() == [machine.cpu_milli for machine in MACHINES]
    assert cluster.ledger.recount() == []


def test_a_machine_is_fragmented_by_what_expected_jobs_cannot_use() -> None:
    cluster = Cluster((Machine("n", 10_000, 1000, 2, "T4"),))
    jobs = [share(f"s{number}", 600) for number in range(3)] + [Job("cpu", cpu_milli=1)]
    fragments = Fragments(cluster, jobs)
    assert [weight for _, weight in typical(jobs)] == [0.75, 0.25]
    assert fragments.total() == pytest.approx(0.25 * 2)  # only the one without GPU can use nothing
    placer = EnginePlacer(cluster)
    placer.place(share("x", 500), 0)
    assert fragments.total() == pytest.approx(0.75 * 0.5 + 0.25 * 1.5)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("fgd", 1), ("best-fit", 1), ("gpu-packing", 1), ("gpu-clustering", 1)],
)
def test_baselines_fill_the_machine_in_use_with_a_second_share(policy: str, expected: int) -> None:
    machines = (Machine("big", 64_000, 1000, 4, "T4"), Machine("small", 64_000, 1000, 4, "T4"))
    cluster = Cluster(machines)
    jobs = [share("a", 470), share("b", 470), whole("w")]
    fragments = Fragments(cluster, jobs)
    cluster.place(jobs[0], 1, cluster.ledger.fit(cluster.ask(jobs[0]), "small"), 0)  # type: ignore[arg-type]
    placer = BaselinePlacer(cluster, policy, fragments, 1)
    assert placer.place(jobs[1], 1) == expected
    assert sorted(cluster.room[1].tolist()) == [60, 1000, 1000, 1000]


def test_the_curve_has_a_point_for_every_percent_of_load() -> None:
    cluster = Cluster(MACHINES, NodePolicy.PACK)
    jobs = [share(f"s{number}", 100) for number in range(80)]
    points, failures, placed = inflation(
        cluster, EnginePlacer(cluster), jobs, Fragments(cluster, jobs), lambda _done, _all: None
    )
    assert (placed, failures) == (80 - sum(failures.values()), failures)
    assert points[-1].arrived == 100.0
    assert [point.allocated for point in points] == sorted(point.allocated for point in points)


def test_a_policy_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(Malformed, match="fastest"):
        experiment.run(Setting(MACHINES, ()), "fastest", 1)


def outcome(policy: str, seed: int, allocation: float) -> Outcome:
    return Outcome(policy, seed, allocation, 1, 0, 0.1, 2.0, {}, Waits(1.0, 0.0, 5.0, 5.0, 1))


def test_differences_are_paired_by_seed() -> None:
    runs = [outcome("pack", seed, 96 + seed / 10) for seed in (1, 2, 3)]
    runs += [outcome("fgd", seed, 95 + seed / 10 + (seed == 2) / 10) for seed in (1, 2, 3)]
    pack, fgd = report.rows(runs)
    assert (pack.seeds, round(pack.allocation, 3), fgd.against) == (3, 96.2, None)
    assert pack.against == pytest.approx(0.9667, abs=1e-4)
    assert pack.sigmas == pytest.approx(29.0, abs=0.01)


def test_a_chart_has_a_line_for_each_policy_and_escapes_what_it_is_told() -> None:
    curve = experiment.run(Setting(MACHINES, (share("s", 300), whole("w"))), "pack", 1).curve
    text = charts.svg({"pack": curve, "fgd": curve}, "<list> & more")
    assert text.count("<polyline") == 4
    assert "&lt;list&gt; &amp; more" in text


@pytest.mark.parametrize(
    ("policy", "low", "high"), [("pack", 95.8, 96.6), ("fgd", 95.0, 95.8), ("best-fit", 92.5, 93.6)]
)
def test_published_and_claimed_figures_hold_on_the_openb_trace(policy: str, low: float, high: float) -> None:
    folder = os.environ.get("HAMI_OPENB")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HAMI_OPENB names no folder with the openb trace")
    machines = files.machines(Path(folder) / "openb_node_list_gpu_node.csv")
    jobs = files.jobs(Path(folder) / "openb_pod_list_default.csv")
    outcome = experiment.run(Setting(machines, jobs), policy, 42)
    assert low <= outcome.gpu_allocation_percent <= high
