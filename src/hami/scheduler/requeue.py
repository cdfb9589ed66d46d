"""Waking pods that wait, when a slice they could use comes free.

kube-scheduler tries pods an extender refused again when something in the
cluster changes, but it may hear of the change before we do, ask, be refused,
and then not ask again for five minutes. So after each freed node we look, a
moment later, for waiting pods that would fit and were not asked about since,
and touch them: an update of the pod itself puts it back into the queue.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from hami.kube import paths
from hami.kube.errors import NotFound
from hami.model.errors import HamiError
from hami.model.ids import PodUid
from hami.scheduler.engine import Engine
from hami.scheduler.held.waiting import Waiter

log = logging.getLogger(__name__)

RETRIED = "hami.io/retried-at"
"""Pod annotation that is the touch: unix seconds."""

SETTLE = 0.25
"""Seconds given to kube-scheduler to come by itself, which it does in the common case."""
AT_ONCE = 16
"""Pods touched in one round. The next round sees what became of them."""


class Api(Protocol):
    """What waking needs of `kube.client.Kube`."""

    async def patch(self, path: str, body: object) -> bytes: ...


class Waker:
    """Touches waiting pods that fit where something was freed."""

    def __init__(self, engine: Engine, kube: Api, now: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._kube = kube
        self._now = now
        self._freed: dict[str, float] = {}
        self._eased: dict[str, float] = {}
        self._called: set[PodUid] = set()
        self._woken: dict[PodUid, float] = {}
        self._news = asyncio.Event()

    def freed(self, node: str) -> None:
        """A node may now take a pod it could not. Cheap: called for every pod that ends."""
        if len(self._engine.waiting):
            self._freed[node] = self._engine.clock()
            self._news.set()

    def eased(self, namespace: str) -> None:
        """A namespace's quota may now take a pod that it could not, on whatever node."""
        if len(self._engine.waiting):
            self._eased[namespace] = self._engine.clock()
            self._news.set()

    def call(self, uid: PodUid) -> None:
        """A pod's slice is held for it: it must come and take it."""
        if self._engine.waiting.get(uid) is not None:
            self._called.add(uid)
            self._news.set()

    async def run(self) -> None:
        """Wake for ever."""
        while True:
            await self._news.wait()
            await asyncio.sleep(SETTLE)
            if not await self.round():
                self._news.clear()

    async def round(self) -> int:
        """One look over who waits; returns how many were touched."""
        if self._engine.gate.closed:
            self._freed.clear()
            self._eased.clear()
            return 0
        freed, eased, touched = dict(self._freed), dict(self._eased), 0
        for waiter in [one for one in map(self._engine.waiting.get, self._called) if one is not None]:
            self._called.discard(waiter.ask.pod.uid)
            await self._touch(waiter)
            touched += 1
        self._called.clear()
        for waiter in list(self._engine.waiting.in_order()):
            nodes: list[str] | None = [node for node, at in freed.items() if self._overlooked(waiter, at)]
            if self._overlooked(waiter, eased.get(waiter.ask.pod.namespace, -1.0)):
                nodes = None
            if nodes != [] and await self._fits(waiter, nodes):
                await self._touch(waiter)
                touched += 1
                if touched == AT_ONCE:
                    return touched
        # All who could use these nodes have been asked about or touched since.
        self._freed = {node: at for node, at in self._freed.items() if freed.get(node) != at}
        self._eased = {namespace: at for namespace, at in self._eased.items() if eased.get(namespace) != at}
        self._woken = {uid: at for uid, at in self._woken.items() if self._engine.waiting.get(uid)}
        return touched + len(self._freed) + len(self._eased)

    def _overlooked(self, waiter: Waiter, freed_at: float) -> bool:
        """Whether the pod was neither tried nor touched since; never for a time before any, -1."""
        return 0 <= freed_at >= waiter.tried and self._woken.get(waiter.ask.pod.uid, -1.0) < freed_at

    async def _fits(self, waiter: Waiter, nodes: list[str] | None) -> bool:
        """On one of `nodes`, None being all."""
        await asyncio.sleep(0)  # one look at a time between requests
        return self._engine.ledger.decide(waiter.ask, nodes).plan is not None

    async def _touch(self, waiter: Waiter) -> None:
        pod = waiter.ask.pod
        self._woken[pod.uid] = self._engine.clock()
        body = {"metadata": {"uid": pod.uid, "annotations": {RETRIED: str(int(self._now() * 1000))}}}
        try:
            await self._kube.patch(paths.pods(pod.namespace, pod.name), body)
        except NotFound:
            self._engine.waiting.settled(pod.uid)
        except HamiError as fault:
            log.info("pod %s could not be woken: %s", pod, fault)
        else:
            self._engine.meters.wakes.inc()
