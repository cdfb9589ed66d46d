"""Bound pods that kubelet never asks cards for: reported, failed and their slices released.

The clock starts when this agent first sees the pod, not at its bind-time: after a reboot
kubelet is as late as we are, and clocks of nodes differ.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from hami.agent.bound import BoundPod, asking
from hami.agent.grants.allocate import Parts
from hami.agent.grants.match import by_pod, next_share
from hami.agent.kubelet.sight import Sight
from hami.wire import annotations as keys

log = logging.getLogger(__name__)


def overdue(parts: Parts, now: float, patience: float) -> list[BoundPod]:
    """Pods that have waited for longer than `patience` seconds of the clock of `now`."""
    seats = by_pod(parts.seats)
    return [
        pod
        for pod in asking(parts.pods.in_order())
        if pod.phase == keys.PHASE_ALLOCATING
        and now - pod.first_seen > patience
        and next_share(pod, seats.get(pod.ref.uid, ()), Sight(None, parts.kept())) is not None
    ]


async def watch(parts: Parts, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Look every now and then, until cancelled."""
    while True:
        await asyncio.sleep(min(10.0, patience / 4))
        for pod in overdue(parts, clock(), patience):
            why = (
                f"bound to this node {clock() - pod.first_seen:.0f} s ago and kubelet has not asked for its cards; "
                "the slice is released. Is kubelet running, and is the pod's count the resource's name?"
            )
            log.warning("allocation never came", extra={"pod": str(pod.ref)})
            parts.outcome.failed(pod, "AllocateTimeout", why)
