"""One look at kubelet: its pods by the public API, and its own file where that agrees."""

import asyncio
from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import Protocol, TypeVar

from msgspec import Struct

from hami.agent.bound import BoundPod
from hami.agent.kubelet.podresources import Kept, KubeletView

K = TypeVar("K", bound=Hashable)
AGAIN_S = 0.02
TRIES = 5
"""kubelet notes an allocation in memory first and writes the file milliseconds later."""


class Kubelet(Protocol):
    """What is asked of kubelet (`podresources.PodResources`)."""

    async def view(self, wait: float) -> KubeletView: ...


ReadKept = Callable[[], tuple[Kept, ...] | None]
"""Reads kubelet's file (`podresources.KubeletFile.read`)."""


class Sight(Struct, frozen=True, dict=True):
    """What kubelet told when it was asked; None where it could not be, or where its file is out of date."""

    view: KubeletView | None = None
    kept: tuple[Kept, ...] | None = None

    @cached_property
    def keepers(self) -> dict[frozenset[str], list[Kept]]:
        """Who has which ids, by kubelet's file."""
        return _grouped(self.kept, lambda kept: kept.ids)

    @cached_property
    def keeps(self) -> dict[str, list[Kept]]:
        """What each pod has, by uid, by kubelet's file."""
        return _grouped(self.kept, lambda kept: kept.uid)

    def knows(self, pod: BoundPod) -> bool:
        """Whether kubelet has begun with this pod; True when that is not known."""
        return self.view is None or (pod.ref.namespace, pod.ref.name) in self.view.held


async def look(kubelet: Kubelet, read: ReadKept, wait: float, about: frozenset[str] | None = None) -> Sight:
    """Both sources, from the same moment; of who has any of the ids `about`, where only that matters.

    Raises `Unavailable` when kubelet does not answer.
    """
    view = await kubelet.view(wait)
    for _ in range(TRIES):
        kept = read()
        if kept is None or _agrees(view, kept, about):
            return Sight(view, kept)
        await asyncio.sleep(AGAIN_S)
    return Sight(view, None)


def _grouped(kept: Iterable[Kept] | None, key: Callable[[Kept], K]) -> dict[K, list[Kept]]:
    found: dict[K, list[Kept]] = {}
    for one in kept or ():
        found.setdefault(key(one), []).append(one)
    return found


def _agrees(view: KubeletView, kept: tuple[Kept, ...], about: frozenset[str] | None) -> bool:
    """Whether the file has all that kubelet shows. It may have more: init containers, and pods about to go."""
    written = {(one.container, one.ids) for one in kept}
    return all(
        (name, ids) in written
        for containers in view.held.values()
        for name, ids in containers.items()
        if about is None or ids & about
    )
