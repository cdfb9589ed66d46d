"""Jobs that wait in a replay, tried again as kube-scheduler does it.

What does not fit is parked. When something ends, everything parked is to be tried again, but each job no sooner than
its back-off allows: 1 s after its first failure, twice as long after each further one, 10 s at most. Of those that may,
the one goes first that has not been looked at for longest. Nothing is kept free for a job that waits.
Owns no clock: `again` is told the time, `wakes` says when it wants to be told.
"""

import heapq
from collections import Counter
from collections.abc import Iterator

from hami.sim.traces.placers import Placer, Refused
from hami.sim.traces.trace import Job

FIRST_BACK_OFF, LONGEST_BACK_OFF = 1.0, 10.0
"""kube-scheduler's podInitialBackoffSeconds and podMaxBackoffSeconds."""


class Waiting:
    """A job, when it was last tried in vain, and when it may be tried again."""

    def __init__(self, job: Job, now: float) -> None:
        self.job = job
        self._back_off = FIRST_BACK_OFF
        self.failed(now)

    def failed(self, now: float) -> None:
        self.tried = now
        self.ready = now + self._back_off
        self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF)

    def __lt__(self, other: "Waiting") -> bool:
        return self.job.name < other.job.name


class Queue:
    """`started` and `gave_up` say when, by the name of the job."""

    def __init__(self, placer: Placer, patience: float) -> None:
        self._placer = placer
        self._patience = patience
        self._parked: list[Waiting] = []
        self._due: list[tuple[float, Waiting]] = []
        self._hopeless: dict[object, str] = {}
        """Shapes that have failed since something last ended, and why: they need not be tried to fail again."""
        self.started: dict[str, float] = {}
        self.gave_up: dict[str, float] = {}
        self.reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._parked) + len(self._due)

    @property
    def wakes(self) -> float:
        """When a job wants to be tried next, as things stand."""
        return self._due[0][0] if self._due else float("inf")

    def come(self, job: Job, now: float) -> bool:
        """Whether the job starts at once."""
        if self._try(job, now) is None:
            return True
        self._parked.append(Waiting(job, now))
        return False

    def ended(self) -> None:
        """Something has ended: whatever waits may fit now."""
        self._hopeless.clear()
        for waiting in self._parked:
            heapq.heappush(self._due, (waiting.ready, waiting))
        self._parked.clear()

    def again(self, now: float) -> Iterator[Job]:
        """Jobs that start now. Those that have waited longer than they will give up."""
        due = []
        while self._due and self._due[0][0] <= now:
            due.append(heapq.heappop(self._due)[1])
        for waiting in sorted(due, key=lambda one: (one.tried, one.job.arrives, one.job.name)):
            job = waiting.job
            reason = self._try(job, now)
            if reason is None:
                yield job
            elif now - job.arrives > self._patience:
                self.gave_up[job.name] = now
                self.reasons[job.name] = reason
            else:
                waiting.failed(now)
                self._parked.append(waiting)

    def left(self) -> list[Job]:
        """Jobs that wait still."""
        return [waiting.job for waiting in (*self._parked, *(waiting for _, waiting in self._due))]

    def failures(self, names: frozenset[str]) -> Counter[str]:
        """Why those of `names` failed that did: in words of the engine, or because the replay ended first."""
        found = Counter(reason for name, reason in self.reasons.items() if name in names)
        found["still waiting at the end"] += sum(job.name in names for job in self.left())
        return found

    def _try(self, job: Job, now: float) -> str | None:
        """Start the job, or say why not."""
        reason = self._hopeless.get(job.shape)
        if reason is not None:
            return reason
        found = self._placer.place(job, now)
        if isinstance(found, Refused):
            self._hopeless[job.shape] = found.reason
            return found.reason
        self.started[job.name] = now
        return None
