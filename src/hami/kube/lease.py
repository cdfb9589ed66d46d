"""Leader election by a Lease: at most one leader at any time, decided by clocks that each trusts only for itself.

A holder counts its time from before it asked for it; a challenger counts from
when it saw the lease change. So with `renew` below `duration` the old leader has
stopped before a new one can start, whatever their wall clocks say.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from msgspec import Struct

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import Conflicted, NotFound
from hami.model.errors import HamiError
from hami.wire.objects import Metadata

log = logging.getLogger(__name__)
RELEASE_S = 2.0


class LeaseSpec(Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Struct, frozen=True):
    metadata: Metadata = Metadata()
    spec: LeaseSpec = LeaseSpec()


class Elector:
    """One candidate. `run` takes part until cancelled; `is_leader` may be asked at any moment.

    duration: seconds after which others may take a lease that is not renewed.
    renew: seconds after a renewal at which the holder stops by itself; below `duration`.
    retry: seconds between attempts.
    """

    def __init__(  # noqa: PLR0917 - the four names, then the three times, in the Lease's own order
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        duration: float = 15.0,
        renew: float = 10.0,
        retry: float = 2.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not retry < renew < duration:
            raise ValueError(f"need retry < renew < duration, not {retry}, {renew}, {duration}")
        if not identity:
            raise ValueError("a candidate needs an identity: the empty one means that nobody leads")
        self.identity = identity
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._duration = duration
        self._renew = renew
        self._retry = retry
        self._clock = clock
        self._now = now
        self._chance = chance
        self._lease: Lease | None = None
        self._fresh = False
        """Whether `_lease` is what the server last told us, so that it may be written without a read."""
        self._seen_at = 0.0
        self._deadline = float("-inf")

    @property
    def is_leader(self) -> bool:
        """Whether we lead now. Ask right before a write: it turns false by the clock alone."""
        return self._clock() < self._deadline

    @property
    def holder(self) -> str:
        """Who led when last seen; empty for nobody."""
        return (self._lease.spec.holder_identity or "") if self._lease else ""

    async def run(
        self, on_started: Callable[[], Awaitable[None]], on_stopped: Callable[[], None] = lambda: None
    ) -> None:
        """Take part until cancelled.

        `on_started` runs as a task of its own while we lead, is cancelled when that ends, and may
        return early; what it raises ends `run`. `on_stopped` is called after each term.
        A cancelled leader gives the lease back, so that the next one need not wait.
        """
        while True:
            await self._acquire()
            await self._lead(on_started, on_stopped)

    # -- a term -------------------------------------------------------------------

    async def _acquire(self) -> None:
        while not await self._attempt(self._renew):  # noqa: ASYNC110 - the event is in the API server
            await asyncio.sleep(self._retry * (1.0 + 0.2 * self._chance()))
        log.info("leading", extra={"lease": self._title, "identity": self.identity})

    async def _lead(self, on_started: Callable[[], Awaitable[None]], on_stopped: Callable[[], None]) -> None:
        work = asyncio.ensure_future(on_started())
        try:
            await self._keep(work)
        finally:
            # Cancelled or out of time: first the work ends, then others may know.
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            held, self._deadline = self.is_leader, float("-inf")
            on_stopped()
            log.info("no longer leading", extra={"lease": self._title, "identity": self.identity})
            if held:
                await self._release()

    async def _keep(self, work: "asyncio.Future[None]") -> None:
        """Renew until that fails for too long. Raises what `work` raised."""
        while self.is_leader:
            left = self._deadline - self._clock()
            waited: set[asyncio.Future[None]] = set() if work.done() else {work}
            await _sleep_or(waited, min(self._retry, left))
            if work.done():
                work.result()
            if self.is_leader:
                await self._attempt(self._deadline - self._clock())

    async def _release(self) -> None:
        lease = self._lease
        if lease is None or lease.spec.holder_identity != self.identity:
            return
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._write(lease, holder="", duration=1.0)
        except (HamiError, TimeoutError) as fault:
            log.info("lease not given back; it runs out by itself", extra={"lease": self._title, "why": str(fault)})

    # -- one attempt ---------------------------------------------------------------

    async def _attempt(self, within: float) -> bool:
        """Take or renew the lease. True if it is ours; False leaves what we hold as it was."""
        started = self._clock()
        try:
            async with asyncio.timeout(max(0.0, within)):
                taken = await self._take()
        except (HamiError, TimeoutError) as fault:
            why = str(fault) or f"no answer in {within:.1f} s"
            level = logging.DEBUG if isinstance(fault, Conflicted) else logging.WARNING
            log.log(level, "lease not written", extra={"lease": self._title, "why": why})
            self._fresh = False  # it may have been written after all, or by somebody else: read it next time
            return False
        if taken:
            self._deadline = started + self._renew
        elif self._deadline > started:
            log.warning("lease taken by another", extra={"lease": self._title, "holder": self.holder})
            self._deadline = float("-inf")
        return taken

    async def _take(self) -> bool:
        if self._lease is not None and self._lease.spec.holder_identity == self.identity and self._fresh:
            await self._write(self._lease, self.identity, self._duration)
            return True
        try:
            self._see(await self._kube.get(self._path, Lease))
        except NotFound:
            await self._create()
            return True
        lease = self._lease
        assert lease is not None
        if self._free(lease):
            await self._write(lease, self.identity, self._duration)
            return True
        return False

    def _free(self, lease: Lease) -> bool:
        holder = lease.spec.holder_identity
        if not holder or holder == self.identity:
            return True
        return self._clock() >= self._seen_at + (lease.spec.lease_duration_seconds or self._duration)

    def _see(self, lease: Lease) -> None:
        before = self._lease
        if before is None or before.metadata.resource_version != lease.metadata.resource_version:
            self._seen_at = self._clock()
        self._lease, self._fresh = lease, True

    async def _create(self) -> None:
        stamp = self._stamp()
        spec = LeaseSpec(self.identity, round(self._duration), stamp, stamp, 0)
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }
        self._see(await self._kube.create(paths.leases(self._namespace), body, Lease))

    async def _write(self, lease: Lease, holder: str, duration: float) -> None:
        """Guarded by the version we saw: of two challengers one gets `Conflicted`."""
        stamp = self._stamp()
        spec: dict[str, object] = {
            "holderIdentity": holder,
            "leaseDurationSeconds": round(duration),
            "renewTime": stamp,
        }
        if lease.spec.holder_identity != holder:
            spec["acquireTime"] = stamp
            spec["leaseTransitions"] = (lease.spec.lease_transitions or 0) + 1
        body = {"metadata": {"resourceVersion": lease.metadata.resource_version}, "spec": spec}
        self._see(await self._kube.patch(self._path, body, "merge", type=Lease))

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    @property
    def _path(self) -> str:
        return paths.leases(self._namespace, self._name)

    @property
    def _title(self) -> str:
        return f"{self._namespace}/{self._name}"


async def _sleep_or(waited: "set[asyncio.Future[None]]", seconds: float) -> None:
    if waited:
        await asyncio.wait(waited, timeout=max(0.0, seconds))
    else:
        await asyncio.sleep(max(0.0, seconds))
