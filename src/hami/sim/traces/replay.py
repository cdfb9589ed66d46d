"""A trace replayed in virtual time: who is placed where, what failed and why, what waited.

Two modes. An inflation: jobs arrive one after the other, nobody leaves, what does not fit is dropped. With
departures: jobs arrive and leave at their times, and what does not fit waits in a `queue`. Decides nothing itself.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct, field

from hami.sim.traces.cluster import Cluster
from hami.sim.traces.fragments import Fragments
from hami.sim.traces.placers import Placer, Refused
from hami.sim.traces.queue import Queue
from hami.sim.traces.steady import lifetime
from hami.sim.traces.trace import Job, sorted_by_arrival

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
    """How long jobs waited, those that failed too, in seconds of the replay; with departures only."""

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
        self._arrived += 100 * self._cluster.worth(job) / max(self._cluster.capacity, 1)
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


class Lives:
    """Jobs that run, by when they end; and what the cluster had allocated from `since` on, over time."""

    def __init__(self, cluster: Cluster, since: float) -> None:
        self._cluster, self._since, self._last = cluster, since, since
        self._ends: list[tuple[float, str]] = []
        self._area = 0.0

    @property
    def next(self) -> float:
        """When the next job ends."""
        return self._ends[0][0] if self._ends else float("inf")

    def start(self, job: Job, now: float) -> None:
        heapq.heappush(self._ends, (now + lifetime(job), job.name))

    def end(self, now: float) -> bool:
        """End what is due. Whether anything was."""
        due = self.next <= now
        while self.next <= now:
            self._cluster.remove(heapq.heappop(self._ends)[1])
        return due

    def pass_to(self, now: float) -> None:
        """Count what is allocated now as allocated until `now`."""
        if now > self._last:
            self._area += self._cluster.allocated() * (now - self._last)
            self._last = now

    @property
    def mean(self) -> float:
        """Cards allocated on average so far."""
        span = self._last - self._since
        return self._area / span if span else self._cluster.allocated()


def departures(
    cluster: Cluster,
    queue: Queue,
    jobs: Sequence[Job],
    fragments: Fragments,
    progress: Progress,
    *,
    since: float = float("-inf"),
    until: float | None = None,
) -> tuple[list[Point], float]:
    """Jobs arrive, wait in `queue`, run for their life time, and leave. The curve, and mean allocation in percent.

    Without `until` it goes on until nothing waits that could start; allocation is measured from `since` (or the
    first arrival) to `until` (or the last arrival).
    """
    arrivals = sorted_by_arrival(jobs)
    first, last = (arrivals[0].arrives, arrivals[-1].arrives) if arrivals else (0.0, 0.0)
    watch, lives = Watch(cluster, fragments, cluster.gpus), Lives(cluster, max(since, first))
    stop, number = last if until is None else until, 0
    while True:
        arrives = arrivals[number].arrives if number < len(arrivals) else float("inf")
        now = min(arrives, lives.next, queue.wakes)
        if now > stop and (until is not None or not len(queue) or now == float("inf")):
            break
        lives.pass_to(min(now, stop))
        if lives.end(now):
            queue.ended()
        for started in queue.again(now):
            lives.start(started, now)
        if arrives <= now:
            job, number = arrivals[number], number + 1
            watch.arrived(job, now)
            if queue.come(job, now):
                lives.start(job, now)
            progress(number, len(arrivals))
    lives.pass_to(stop)
    return watch.points, 100 * lives.mean / max(cluster.gpus, 1)


def waits(jobs: Sequence[Job], queue: Queue, end: float) -> Waits:
    """Waiting times: until a job started, gave up, or the replay ended."""
    until = {**queue.gave_up, **queue.started}
    times = np.array([until.get(job.name, end) - job.arrives for job in jobs])
    if not len(times):
        return Waits(0.0, 0.0, 0.0, 0.0, 0)
    p50, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    return Waits(float(times.mean()), p50, p95, p99, int((times > 0).sum()))
