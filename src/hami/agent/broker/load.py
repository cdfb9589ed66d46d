"""GPU time that no library counts, as NVML shows it.

A tenant alone on its card under policy `default`, or without a compute limit, launches straight on: a launch costs
nothing then, and its library has no figure. NVML has one of each process, the percent of a sample period in which a
kernel of it was on the card. Beside neighbours that swings by the second, so what was charged goes before it.
"""

import time
from collections.abc import Callable, Mapping

from hami.agent.broker.place import Place
from hami.vendors.nvidia.nvml import Device, Nvml
from hami.wire.policy import CardLimit, CorePolicy

WINDOW_S = 2.0
"""Samples of so long ago and since: drivers take one a sixth of a second to a second, and we look once a second."""
AHEAD_S = 0.5
"""Samples carry the wall clock. When that was put back, those of before are of a time to come, and are none of now."""

Loads = Mapping[str, Mapping[int, float]]
"""Percent by pid by card. A card that is not there did not tell; a pid that is not there was idle."""


def always_charged(place: Place, card: CardLimit) -> bool:
    """Whether every launch of the container on the card is paid for, so that its library knows all of its time."""
    policy = place.file.policy
    return policy is not None and policy.core_policy is CorePolicy.FORCE and 0 < card.core_percent < 100


def told(place: Place) -> bool:
    """Whether anybody is there whose time is to be asked for."""
    return any(True for _ in place.known())


def wanted(place: Place, card: CardLimit) -> bool:
    """Whether anybody is there whose time NVML alone may know."""
    return told(place) and not always_charged(place, card)


def read(nvml: Nvml, device: Device, clock: Callable[[], float] = time.time) -> dict[int, float]:
    """Percent by pid, the mean of the samples in the window. Raises NvmlFault; MIG cards do not tell."""
    found: dict[int, list[int]] = {}
    now = clock()
    for one in nvml.process_loads(device, int((now - WINDOW_S) * 1e6)):
        if one.at_us <= (now + AHEAD_S) * 1e6:
            found.setdefault(one.pid, []).append(one.sm_percent)
    return {pid: sum(samples) / len(samples) for pid, samples in found.items()}


def of_place(place: Place, card: CardLimit, loads: Loads) -> float | None:
    """Percent of the card that the container's processes had; None where NVML cannot say."""
    pids = {session.peer.pid for session in place.known()}
    if card.uuid not in loads or 0 in pids:  # 0: pids of the host are not told to us
        return None
    return min(100.0, sum(loads[card.uuid].get(pid, 0.0) for pid in pids))
