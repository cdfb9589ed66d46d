"""One look at kubelet: its pods by the public API, and its own file where that agrees."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from hami.agent.bound import BoundPod
from hami.agent.podresources import Kept, KubeletView

AGAIN_S = 0.02
TRIES = 5
"""kubelet notes an allocation in memory first and writes the file milliseconds later."""


class Kubelet(Protocol):
    """What is asked of kubelet (`podresources.PodResources`)."""

    async def view(self, wait: float) -> KubeletView: ...


ReadKept = Callable[[], tuple[Kept, ...] | None]
"""Reads kubelet's file (`podresources.KubeletFile.read`)."""


class Sight(Struct, frozen=True):
    """What kubelet told when it was asked; None where it could not be, or where its file is out of date."""

    view: KubeletView | None = None
    kept: tuple[Kept, ...] | None = None

    def knows(self, pod: BoundPod) -> bool:
        """Whether kubelet has begun with this pod; True when that is not known."""
        return self.view is None or (pod.ref.namespace, pod.ref.name) in self.view.held


async def look(kubelet: Kubelet, read: ReadKept, wait: float) -> Sight:
    """Both sources, from the same moment. Raises `Unavailable` when kubelet does not answer."""
    view = await kubelet.view(wait)
    for _ in range(TRIES):
        kept = read()
        if kept is None or _agrees(view, kept):
            return Sight(view, kept)
        await asyncio.sleep(AGAIN_S)
    return Sight(view, None)


def _agrees(view: KubeletView, kept: tuple[Kept, ...]) -> bool:
    """Whether the file has all that kubelet shows. It may have more: init containers, and pods about to go."""
    written = {(one.container, one.ids) for one in kept}
    return all((name, ids) in written for containers in view.held.values() for name, ids in containers.items())
