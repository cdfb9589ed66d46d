"""The scheduler's own figures: how long verbs take, what is refused, what waits.

Counted where it happens; texts are made in `metrics`. Names are stable, units
are in them.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hami.observe.metrics import FAST


class Meters:
    """Process metrics of one scheduler replica, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.duration = Histogram(
            "hami_scheduler_request_duration_seconds",
            "Time to answer a request, from its whole body read to its answer made.",
            ["verb"],
            buckets=FAST,
            registry=registry,
        )
        self.requests = Counter(
            "hami_scheduler_requests_total", "Requests answered.", ["verb", "code"], registry=registry
        )
        self.rejections = Counter(
            "hami_scheduler_node_rejections_total",
            "Nodes refused in filters that found no node at all, by the reason most of the node's cards share.",
            ["reason"],
            registry=registry,
        )
        self.decisions = Counter(
            "hami_scheduler_decisions_total",
            "Filters decided: placed, refused or unusable.",
            ["result"],
            registry=registry,
        )
        self.placed = self.decisions.labels("placed")
        self.refused = self.decisions.labels("refused")
        self.unusable = self.decisions.labels("unusable")
        self.bind_failures = Counter(
            "hami_scheduler_bind_failures_total",
            "Binds refused or failed, by kind of fault.",
            ["fault"],
            registry=registry,
        )
        self.wakes = Counter(
            "hami_scheduler_wakes_total",
            "Waiting pods put back into kube-scheduler's queue after capacity was freed.",
            registry=registry,
        )
        self.preempted = Counter(
            "hami_scheduler_preemptions_total", "Pods evicted for more important ones.", registry=registry
        )
        self.expired = Counter(
            "hami_scheduler_reservations_expired_total",
            "Slices held for a bind that never came.",
            ["state"],
            registry=registry,
        )
        self.waiting = Gauge(
            "hami_scheduler_pending_pods",
            "Pods that no node could take when they were last tried.",
            registry=registry,
        )
        self.reservations = Gauge(
            "hami_scheduler_reservations",
            "Slices taken but not yet confirmed by the API server.",
            ["state"],
            registry=registry,
        )
        self.leading = Gauge(
            "hami_scheduler_leading",
            "1 while this replica decides.",
            registry=registry,
        )
        self.nodes = Gauge(
            "hami_scheduler_nodes", "Nodes with registered cards, usable or excluded.", ["state"], registry=registry
        )
        self.loop_lag = Gauge(
            "hami_scheduler_loop_lag_seconds", "How late the process's event loop last was.", registry=registry
        )
        self.pods = Gauge("hami_scheduler_pods", "Bound pods that hold slices.", registry=registry)
        self.watch_cuts = Gauge(
            "hami_scheduler_watch_cuts", "Times a watch was cut since the start.", ["resource"], registry=registry
        )
        self.watch_events = Gauge(
            "hami_scheduler_watch_events", "Watch events taken in since the start.", ["resource"], registry=registry
        )
        self.handshakes = Counter(
            "hami_scheduler_handshakes_total",
            "TLS handshakes: done, failed, late (ended after 10 s) or gave_way (ended for others: too many at once).",
            ["result"],
            registry=registry,
        )
        self.connections = Counter(
            "hami_scheduler_connections_total", "Connections accepted.", ["listener"], registry=registry
        )
