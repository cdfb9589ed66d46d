"""Which of several replicas decides: one, by a Lease, and it rebuilds before it answers.

Two ways. With `lease` the replicas elect one among themselves, and a Service
sends kube-scheduler to the one that is ready. With `follow` each replica has a
kube-scheduler of its own beside it, and the one decides whose kube-scheduler
holds kube-scheduler's Lease. Followers keep their watches running and answer
admission reviews; they refuse extender verbs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import NotFound
from hami.kube.lease import Elector, Lease
from hami.model.errors import HamiError
from hami.scheduler.gate import Gate

log = logging.getLogger(__name__)

Rebuild = Callable[[], Awaitable[None]]
"""Reads nodes and pods anew; closes the gate, and returns when that has begun."""


class Leadership:
    """Opens and closes the gate as this replica starts and stops to lead."""

    def __init__(self, gate: Gate, rebuild: Rebuild) -> None:
        self._gate = gate
        self._rebuild = rebuild
        self.in_term: Callable[[], bool] = lambda: True
        """Whether we lead by the clock alone, whatever has been noticed so far."""

    async def started(self) -> None:
        """The predecessor's last bindings may be news to our watches: read everything once more."""
        await self._rebuild()
        self._gate.lead(self.in_term)
        log.info("this replica decides from now on")

    def stopped(self, why: str) -> None:
        self._gate.follow(why)
        log.info("this replica does not decide: %s", why)


async def elect(elector: Elector, leadership: Leadership) -> None:
    """Take part in the replicas' own election for ever."""
    leadership.in_term = lambda: elector.is_leader
    await elector.run(leadership.started, lambda: leadership.stopped("another replica holds the Lease"))


class LeaseWatcher:
    """Follows kube-scheduler's Lease: we lead while its holder is the kube-scheduler beside us.

    kube-scheduler names itself ``<host>_<uuid>``. It stops by itself after its renew deadline,
    so we stop with it when the Lease has not changed for that long by our own clock.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        leadership: Leadership,
        *,
        renew_deadline: float,
        poll: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._path = paths.leases(namespace, name)
        self._title = f"{namespace}/{name}"
        self._identity = identity
        self._leadership = leadership
        self._renew_deadline = renew_deadline
        self._poll = poll
        self._clock = clock
        self._version = ""
        self._changed_at = 0.0
        self._leading = False
        leadership.in_term = self._alive

    async def run(self) -> None:
        """Look for ever."""
        before: str | None = None
        while True:
            holder = await self._holder()
            ours = self.ours(holder)
            if ours and not self._leading:
                await self._leadership.started()
            elif not ours and (self._leading or holder != before):
                self._leadership.stopped(f"Lease {self._title} is held by {holder or 'nobody'}")
            self._leading, before = ours, holder
            await asyncio.sleep(self._poll)

    def ours(self, holder: str) -> bool:
        """Whether `holder` is our kube-scheduler and still renews."""
        return self._alive() and holder.rpartition("_")[0] == self._identity

    def _alive(self) -> bool:
        return self._clock() - self._changed_at <= self._renew_deadline

    async def _holder(self) -> str:
        with suppress(HamiError, TimeoutError):
            try:
                async with asyncio.timeout(self._renew_deadline / 2):
                    lease = await self._kube.get(self._path, Lease)
            except NotFound:
                self._version = ""
                return ""
            if lease.metadata.resource_version != self._version:
                self._version, self._changed_at = lease.metadata.resource_version, self._clock()
            self._last = lease.spec.holder_identity or ""
        return self._last

    _last = ""
