"""The agent's counters: allocations, verifications, cards, kubelet, conflicts. Names end in their units."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hami.observe.metrics import FAST, registry

Outcome = Callable[[str], None]
"""Called with the reason where it did not go well."""


class Meters:
    """All of one agent. Every series is there from the start, at zero."""

    def __init__(self, into: CollectorRegistry | None = None) -> None:
        self.registry = into if into is not None else registry()
        made = self.registry
        self._allocations = Counter(
            "hami_agent_allocations", "Answers to kubelet's Allocate by outcome.", ["outcome"], registry=made
        )
        self._allocation_s = Histogram(
            "hami_agent_allocation_seconds", "How long kubelet waited for an Allocate.", buckets=FAST, registry=made
        )
        self._preference_s = Histogram(
            "hami_agent_preference_seconds", "How long kubelet waited for a preference.", buckets=FAST, registry=made
        )
        self._verifications = Counter(
            "hami_agent_verifications", "Container starts that were checked, by outcome.", ["outcome"], registry=made
        )
        self._verification_s = Histogram(
            "hami_agent_verification_seconds", "How long a container start was held.", buckets=FAST, registry=made
        )
        self.registered = Gauge("hami_agent_kubelet_registered", "1 while kubelet knows our resource.", registry=made)
        self.registrations = Gauge(
            "hami_agent_kubelet_registrations", "Registrations with kubelet since start.", registry=made
        )
        self.seats = Gauge("hami_agent_granted_containers", "Containers that have a grant now.", registry=made)
        self.exchanged = Gauge(
            "hami_agent_exchanged_allocations", "Wrong guesses put right before the container started.", registry=made
        )
        self.stopped = Gauge(
            "hami_agent_stopped_allocations", "Wrong guesses that could only be stopped.", registry=made
        )
        self.conflict = Gauge(
            "hami_agent_conflicting_plugins", "Other device plugins on this node that offer our cards.", registry=made
        )
        self.writable = Gauge(
            "hami_agent_disk_writable", "0 while no grant can be written and the cards are held back.", registry=made
        )
        self.outcomes_waiting = Gauge(
            "hami_agent_outcomes_waiting", "Allocation outcomes the API server does not have yet.", registry=made
        )
        for outcome in ("granted", "Fault"):
            self._allocations.labels(outcome)
        for outcome in ("started", "NotVerified"):
            self._verifications.labels(outcome)

    @contextmanager
    def preference(self) -> Iterator[None]:
        with self._preference_s.time():
            yield

    @contextmanager
    def allocation(self) -> Iterator[Outcome]:
        with self._measured(self._allocations, self._allocation_s, "granted") as outcome:
            yield outcome

    @contextmanager
    def verification(self) -> Iterator[Outcome]:
        with self._measured(self._verifications, self._verification_s, "started") as outcome:
            yield outcome

    @contextmanager
    def _measured(self, counter: Counter, histogram: Histogram, good: str) -> Iterator[Outcome]:
        reason = good

        def outcome(why: str) -> None:
            nonlocal reason
            reason = why

        started = time.perf_counter()
        try:
            yield outcome
        finally:
            histogram.observe(time.perf_counter() - started)
            counter.labels(reason).inc()
