"""A trace replayed in virtual time: who is placed where, what failed and why, what waited.

Two modes. An inflation: jobs arrive one after the other, nobody leaves, what does not fit is dropped. With
departures: jobs arrive and leave at their times (compressed by a factor), and what does not fit waits
its turn and is tried again whenever something has ended. Decides nothing itself.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct, field

from hami.sim.cluster import Cluster
from hami.sim.fragments import Fragments
from hami.sim.placers import Placer, Refused
from hami.sim.trace import Job, sorted_by_arrival

Progress = Callable[[int, int], None]
"""Jobs done, jobs in all."""


class Point(Struct, frozen=True):
    """The cluster when `arrived` percent of its GPUs had been asked for. Percentages of all GPUs."""

    arrived: float
    allocated: float
    fragmented: float
    at: float = 0.0
    """Virtual seconds."""


class Waits(Struct, frozen=True):
    """How long jobs waited, in seconds of the replay; with departures only."""

    mean: float
    p50: float
    p95: float
    p99: float
    waited: int
    """Jobs that did not start at once."""


class Outcome(Struct, frozen=True):
    """One replay."""

    policy: str
    seed: int
    gpu_allocation_percent: float
    """At the end; with departures, the mean over the time in which jobs arrive."""
    placed: int
    failed: int
    seconds: float
    """CPU time of this process for the placements, without reading files."""
    gpu_fragmented_percent: float
    failures: dict[str, int] = field(default_factory=dict)
    """By reason, the most frequent first."""
    waits: Waits | None = None
    curve: tuple[Point, ...] = ()


class Watch:
    """Takes a point of the curve at every percent of arrived load."""

    def __init__(self, cluster: Cluster, fragments: Fragments, cards: int) -> None:
        self._cluster, self._fragments, self._cards = cluster, fragments, max(cards, 1)
        self.points: list[Point] = []
        self._arrived = 0.0
        self._next = 0.0

    def arrived(self, job: Job, now: float) -> None:
        card = self._cluster.share(job, 0) / 1000 if job.cards else 0.0
        self._arrived += 100 * job.cards * card / self._cards
        if self._arrived >= self._next:
            self.points.append(self.point(now))
            self._next = np.floor(self._arrived) + 1

    def point(self, now: float) -> Point:
        allocated = 100 * self._cluster.allocated() / self._cards
        fragmented = 100 * self._fragments.total() / self._cards
        return Point(round(self._arrived, 2), round(allocated, 3), round(fragmented, 3), now)


def inflation(
    cluster: Cluster, placer: Placer, jobs: Sequence[Job], fragments: Fragments, progress: Progress
) -> tuple[list[Point], Counter[str], int]:
    """Place `jobs` one after the other. The curve, failures by reason, and how many were placed."""
    watch, failures, placed = Watch(cluster, fragments, cluster.gpus), Counter[str](), 0
    for number, job in enumerate(jobs):
        watch.arrived(job, float(number))
        found = placer.place(job, float(number))
        if isinstance(found, Refused):
            failures[found.reason] += 1
        else:
            placed += 1
        progress(number + 1, len(jobs))
    watch.points.append(watch.point(float(len(jobs))))
    return watch.points, failures, placed


class Queue:
    """Jobs in the order they came, tried again when something has ended; a job of a shape that has just
    failed is not tried again before."""

    def __init__(self, placer: Placer, patience: float) -> None:
        self._placer = placer
        self._patience = patience
        self._waiting: deque[Job] = deque()
        self.started: dict[str, float] = {}
        self.failures = Counter[str]()

    def __len__(self) -> int:
        return len(self._waiting)

    def come(self, job: Job, now: float) -> Job | None:
        """The job if it starts at once."""
        if isinstance(self._placer.place(job, now), Refused):
            self._waiting.append(job)
            return None
        self.started[job.name] = now
        return job

    def again(self, now: float) -> Iterator[Job]:
        """Jobs that start now. Those that have waited longer than `patience` give up."""
        left: deque[Job] = deque()
        hopeless = set()
        for job in self._waiting:
            if job.shape in hopeless:
                left.append(job)
                continue
            found = self._placer.place(job, now)
            if not isinstance(found, Refused):
                self.started[job.name] = now
                yield job
            elif now - job.arrives > self._patience:
                self.failures[found.reason] += 1
            else:
                hopeless.add(job.shape)
                left.append(job)
        self._waiting = left

    def give_up(self) -> None:
        """The replay ends; what still waits has failed."""
        self.failures["still waiting at the end"] += len(self._waiting)


def departures(
    cluster: Cluster,
    placer: Placer,
    jobs: Sequence[Job],
    fragments: Fragments,
    progress: Progress,
    *,
    patience: float,
) -> tuple[list[Point], Queue, float]:
    """Jobs arrive, run for their life time, and leave. The curve, the queue, and mean allocation in percent."""
    watch, queue, ends = Watch(cluster, fragments, cluster.gpus), Queue(placer, patience), list[tuple[float, str]]()
    arrivals = sorted_by_arrival(jobs)
    area, last = 0.0, arrivals[0].arrives if arrivals else 0.0
    for number, job in enumerate(arrivals):
        while ends and ends[0][0] <= job.arrives:
            now = ends[0][0]
            area, last = area + cluster.allocated() * (now - last), now
            while ends and ends[0][0] <= now:
                cluster.remove(heapq.heappop(ends)[1])
            for started in queue.again(now):
                heapq.heappush(ends, (now + life(started), started.name))
        area, last = area + cluster.allocated() * (job.arrives - last), job.arrives
        watch.arrived(job, job.arrives)
        if queue.come(job, job.arrives) is not None:
            heapq.heappush(ends, (job.arrives + life(job), job.name))
        progress(number + 1, len(arrivals))
    while ends and len(queue):
        now = ends[0][0]
        while ends and ends[0][0] <= now:
            cluster.remove(heapq.heappop(ends)[1])
        for started in queue.again(now):
            heapq.heappush(ends, (now + life(started), started.name))
    queue.give_up()
    span = last - arrivals[0].arrives if arrivals else 0.0
    mean = 100 * area / span / max(cluster.gpus, 1) if span else 100 * cluster.allocated() / max(cluster.gpus, 1)
    return watch.points, queue, mean


def life(job: Job) -> float:
    """Seconds a job runs once it has started; one that never leaves runs on."""
    return float("inf") if job.leaves is None else job.leaves - job.arrives


def waits(jobs: Sequence[Job], started: dict[str, float]) -> Waits:
    """Waiting times of the jobs that started."""
    times = np.array([started[job.name] - job.arrives for job in jobs if job.name in started])
    if not len(times):
        return Waits(0.0, 0.0, 0.0, 0.0, 0)
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    return Waits(float(times.mean()), p50, p95, p99, int((times > 0).sum()))
