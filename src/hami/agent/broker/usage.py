"""What containers use, as metrics: HAMi's names for each container and card, and the broker's own counters."""

from collections.abc import Iterator

from hami.agent.broker import share
from hami.agent.broker.look import Look
from hami.agent.broker.place import Place
from hami.agent.broker.server import Broker
from hami.agent.broker.session import End
from hami.observe.exposition import Family, Sample
from hami.wire.broker import KINDS

ZONE = (("zone", "vGPU"),)


def _family(name: str, text: str) -> Family:
    return Family(name, text, "gauge", ZONE)


USED = _family("hami_vgpu_memory_used_bytes", "Device memory a container uses.")
LIMIT = _family("hami_vgpu_memory_limit_bytes", "Device memory a container may use; absent: the whole card.")
CONTAINER = _family("hami_container_device_memory_bytes", "Device memory a container uses.")
UTILISATION = _family(
    "hami_container_device_utilization_ratio",
    "GPU time of a container, percent of the last second: as charged, else as NVML shows its processes "
    "(hami_vgpu_time_charged says which); absent: nobody knows.",
)
CHARGED = _family(
    "hami_vgpu_time_charged",
    "1: a container's GPU time is what its launches were charged; 0: none was, as when it is alone on the card under "
    "policy default or has no compute limit, and NVML's word stands for it.",
)
CORE_LIMIT = _family("hami_vgpu_core_limit_ratio", "Percent of the GPU's time a container may use.")
LAST_KERNEL = _family("hami_container_last_kernel_elapsed_seconds", "Time since a container's last charged launch.")
CONTEXT = _family("hami_vgpu_memory_context_bytes", "Device memory of contexts.")
MODULE = _family("hami_vgpu_memory_module_bytes", "Device memory that no allocation call accounts for: modules, heaps.")
BUFFER = _family("hami_vgpu_memory_buffer_bytes", "Device memory of buffers, pools, arrays and graphs.")
SHOWN = _family(
    "hami_vgpu_memory_shown_bytes",
    "Device memory of a container's processes as NVML shows it; absent: it cannot tell.",
)
WAITED = Family(
    "hami_vgpu_throttled_seconds_total", "Time launches of live processes have waited for their limit.", "counter", ZONE
)
REFUSED = Family("hami_vgpu_memory_refused_total", "Allocations refused for the limit.", "counter", ZONE)
CLIENTS = Family("hami_broker_clients", "Processes registered with the broker.")
ENDED = Family("hami_broker_sessions_ended_total", "Sessions that ended, by reason.", "counter")
UNREGISTERED = Family(
    "hami_broker_unregistered_processes", "Processes of sliced containers that use a card and did not register."
)
ORPHANED = Family(
    "hami_broker_orphaned_processes", "Processes of pods without a slice that use a card with slices, by NVML."
)
LOOKED = Family("hami_broker_look_age_seconds", "Time since cards were last looked at from outside; about 1.")
STOPPED = Family(
    "hami_broker_stopped_processes_total", "Processes stopped: unregistered, or past their slice.", "counter"
)
EXCEEDED = Family("hami_broker_exceeded_slices", "Slices that hold more than their limit by NVML.")
OVERTIME = Family(
    "hami_broker_overtime_slices",
    "Slices that for half a minute had more of their card's time than their limit and 20 points, by NVML.",
)
FAMILIES = (
    USED, LIMIT, CONTAINER, UTILISATION, CHARGED, CORE_LIMIT, LAST_KERNEL, CONTEXT, MODULE, BUFFER, SHOWN, WAITED,
    REFUSED, CLIENTS, ENDED, UNREGISTERED, ORPHANED, STOPPED, EXCEEDED, OVERTIME, LOOKED,
)  # fmt: skip
_CONTEXT, _MODULE = KINDS.index("context"), KINDS.index("unattributed")


def samples(broker: Broker, look: Look, now: float) -> Iterator[Sample]:
    """All of now. `now` is CLOCK_MONOTONIC in seconds, which all processes of a host share."""
    yield CLIENTS, {}, sum(1 for _ in broker.sessions())
    for end in End:
        yield ENDED, {"reason": end.value}, broker.ended[end]
    yield UNREGISTERED, {}, look.unregistered
    yield ORPHANED, {}, look.orphaned
    yield STOPPED, {}, look.stopped
    yield EXCEEDED, {}, look.exceeded
    yield OVERTIME, {}, look.overtime
    yield LOOKED, {}, max(0.0, round(now - look.looked, 3))
    for place in broker.places:
        # Nothing of a container before its first cuInit, as HAMi has it.
        if any(True for _ in place.known()):
            yield from _of_place(place, look, now)


def _of_place(place: Place, look: Look, now: float) -> Iterator[Sample]:
    tenant = place.tenant
    for index, card in enumerate(place.file.policy.cards if place.file.policy else ()):
        labels = {
            "namespace": tenant.pod.namespace,
            "pod": tenant.pod.name,
            "container": tenant.container,
            "vdevice_index": str(index),
            "device_uuid": card.uuid,
        }
        told = [(session, session.usage[index]) for session in place.known() if index in session.usage]
        held = [sum(usage.held_bytes[kind] for _, usage in told) for kind in range(len(KINDS))]
        yield USED, labels, sum(held)
        yield CONTAINER, labels, sum(held)
        yield CONTEXT, labels, held[_CONTEXT]
        yield MODULE, labels, held[_MODULE]
        yield BUFFER, labels, sum(held) - held[_CONTEXT] - held[_MODULE]
        if (shown := look.seen_bytes.get((tenant.key, card.uuid))) is not None:
            yield SHOWN, labels, shown
        if card.mem_mib is not None:
            yield LIMIT, labels, card.mem_mib << 20
        yield CORE_LIMIT, labels, card.core_percent or 100
        had = share.of_place(place, index, look, now)
        if had is not None:
            yield UTILISATION, labels, round(had.percent, 2)
            yield CHARGED, labels, int(had.charged)
        last = max((usage.launched_ns for _, usage in told), default=0)
        if last > 0:
            yield LAST_KERNEL, labels, max(0.0, round(now - last / 1e9, 3))
        yield WAITED, labels, round(sum(usage.waited_ns for _, usage in told) / 1e9, 3)
        yield REFUSED, labels, max((usage.refused for _, usage in told), default=0)
