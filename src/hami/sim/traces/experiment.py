"""One replay from beginning to end: a trace, a policy and a seed in, an `Outcome` out. What `hami simulate` runs."""

import random
import time
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from hami.model.ask import NodePolicy
from hami.model.errors import Malformed
from hami.sim.traces.cluster import Cluster
from hami.sim.traces.fragments import Fragments
from hami.sim.traces.inflate import inflate
from hami.sim.traces.placers import ENGINE, POLICIES, BaselinePlacer, EnginePlacer, Placer
from hami.sim.traces.queue import Queue
from hami.sim.traces.replay import Outcome, Progress, departures, inflation, waits
from hami.sim.traces.steady import Load, steady
from hami.sim.traces.trace import Job, Machine, one_of_each_name


class Setting(Struct, frozen=True):
    """What is replayed, but for policy and seed."""

    machines: tuple[Machine, ...]
    jobs: tuple[Job, ...]
    inflate: float = 1.3
    """Stop when jobs have asked for this many times all cards; without departures only."""
    departures: bool = False
    compress: float = 1.0
    """Divide the times between arrivals by this; life times stay."""
    load: Load | None = None
    """With departures: arrivals drawn from the trace instead of its own times."""
    patience: float = float("inf")
    """Seconds of the replay after which a waiting job gives up."""
    host_jobs: str = "pack"
    """Who places pods without cards under `pack`: pack itself, or kube-scheduler's `least-allocated`."""
    ties: str = "fixed"
    """Who is taken of equal nodes: the first in an order that the seed fixes, or one at `random` each time, as
    kube-scheduler does it. Our scheduler names one node, the first of equal ones by name; then names are dealt anew."""


def run(setting: Setting, policy: str, seed: int, progress: Progress = lambda _done, _all: None) -> Outcome:
    """Replay `setting` under `policy`. Raises `Malformed` for what `check` refuses."""
    check(setting, policy)
    machines = renamed(setting.machines, seed) if setting.ties == "random" else setting.machines
    cluster = Cluster(machines, NodePolicy(policy) if policy in ENGINE else NodePolicy.BINPACK)
    fragments = Fragments(cluster, setting.jobs)
    placer = _placer(setting, cluster, policy, fragments, seed)
    play = _depart if setting.departures else _inflate
    started = time.process_time()
    outcome = play(setting, cluster, placer, fragments, seed=seed, progress=progress)
    return replace(outcome, policy=policy, seconds=round(time.process_time() - started, 3))


def check(setting: Setting, policy: str) -> None:
    """Raises `Malformed` for a policy nobody knows, and for what cannot be replayed; takes no time."""
    if policy not in POLICIES:
        raise Malformed("--policy", policy, f"one of {', '.join(POLICIES)}")
    if not any(machine.cards for machine in setting.machines):
        raise Malformed("--nodes", "no node with a card", "at least one node with a card")
    if not setting.jobs:
        raise Malformed("--pods", "no pod", "at least one pod")
    ours = [job for job in setting.jobs if job.cards]
    if ours and not setting.departures and not any(job.card_mem or job.card_percent or job.card_core for job in ours):
        raise Malformed("--pods", "no part of any card", "card_mem, card_percent, card_core or gpus of some pod")
    one_of_each_name((machine.name for machine in setting.machines), "--nodes")
    one_of_each_name((job.name for job in setting.jobs), "--pods")
    if setting.departures and all(job.leaves is None for job in setting.jobs):
        if setting.load is not None:
            raise Malformed("--pods", "no pod that ever leaves", "times of arrival and end, for --load")
        if len({job.arrives for job in setting.jobs}) == 1:
            allowed = "times of arrival and end, for --departures; a longer record has them, and --inflate needs none"
            raise Malformed("--pods", "no times: all pods are there at once and stay", allowed)


def compressed(jobs: Sequence[Job], by: float) -> list[Job]:
    """Arrivals `by` times as dense; every job lives as long as before."""
    found = []
    for job in jobs:
        arrives = job.arrives / by
        leaves = None if job.leaves is None else arrives + (job.leaves - job.arrives)
        found.append(replace(job, arrives=arrives, leaves=leaves))
    return found


def renamed(machines: Sequence[Machine], seed: int) -> list[Machine]:
    """The same machines under names that are dealt at random."""
    names = [machine.name for machine in machines]
    random.Random(seed).shuffle(names)  # noqa: S311 - a repeatable order, no secret
    return [replace(machine, name=name) for machine, name in zip(machines, names, strict=True)]


def _placer(setting: Setting, cluster: Cluster, policy: str, fragments: Fragments, seed: int) -> Placer:
    rng = np.random.default_rng(seed) if setting.ties == "random" else None
    if policy in ENGINE:
        return EnginePlacer(cluster, host_jobs=setting.host_jobs if policy == "pack" else "least-allocated", ties=rng)
    return BaselinePlacer(cluster, policy, fragments, seed, ties=rng)


def _inflate(
    setting: Setting, cluster: Cluster, placer: Placer, fragments: Fragments, *, seed: int, progress: Progress
) -> Outcome:
    order = inflate(setting.jobs, setting.machines, setting.inflate, seed)
    points, failures, placed = inflation(cluster, placer, order, fragments, progress)
    return Outcome(
        policy="",
        seed=seed,
        gpu_allocation_percent=points[-1].allocated,
        placed=placed,
        failed=sum(failures.values()),
        seconds=0.0,
        gpu_fragmented_percent=points[-1].fragmented,
        failures=dict(failures.most_common()),
        curve=tuple(points),
    )


def _depart(
    setting: Setting, cluster: Cluster, placer: Placer, fragments: Fragments, *, seed: int, progress: Progress
) -> Outcome:
    load, queue = setting.load, Queue(placer, setting.patience)
    if load is None:
        jobs, since, until = compressed(setting.jobs, setting.compress), float("-inf"), None
    else:
        jobs, since, until = (
            steady(setting.jobs, setting.machines, load, seed),
            load.longest,
            load.end,
        )
    points, mean = departures(cluster, queue, jobs, fragments, progress, since=since, until=until)
    counted = [job for job in jobs if job.arrives >= since]
    failures = {
        reason: count for reason, count in queue.failures(frozenset(job.name for job in counted)).most_common() if count
    }
    return Outcome(
        policy="",
        seed=seed,
        gpu_allocation_percent=round(mean, 3),
        placed=sum(job.name in queue.started for job in counted),
        failed=sum(failures.values()),
        seconds=0.0,
        gpu_fragmented_percent=round(sum(point.fragmented for point in points) / max(len(points), 1), 3),
        failures=failures,
        waits=waits(counted, queue, max(job.arrives for job in jobs) if until is None else until),
        curve=tuple(points),
    )
