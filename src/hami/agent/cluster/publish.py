"""How an allocation went, told to the cluster: one patch a pod, and an event where it failed.

Callers never wait: an outcome is noted and written by `run`, again and again until the API
server has it. After a restart the same notes follow from the seats, so nothing is kept.
"""

import asyncio
import logging
from typing import Literal, Protocol

from msgspec import Struct

from hami.agent.bound import BoundPod, Records
from hami.kube import paths
from hami.kube.backoff import Backoff
from hami.kube.client import Kube
from hami.kube.errors import ApiError, Conflicted, NotFound
from hami.model.ask import PodRef
from hami.model.errors import HamiError, Retry
from hami.model.ids import PodUid
from hami.wire import annotations as keys
from hami.wire.objects import Pod

log = logging.getLogger(__name__)
ECHO_S = 10.0
"""How late our watch may tell of what we have written ourselves; after that it is written again."""
AT_ONCE = 8
"""Patches on their way at the same time: a burst of a hundred pods is told within a second."""


def _now() -> float:
    return asyncio.get_running_loop().time()


class Events(Protocol):
    """What is used of `kube.events.Recorder`; returns at once."""

    def record(self, regarding: PodRef, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


class _Outcome(Struct, frozen=True):
    pod: PodRef
    annotations: dict[str, str]
    labels: dict[str, str]
    failure: tuple[str, str] | None = None
    """Reason and message for the pod's status, where we must end it ourselves."""


class Publisher:
    """Implements `allocate.Outcome` on the API server."""

    def __init__(self, kube: Kube, records: Records, node: str, events: Events) -> None:
        self._kube = kube
        self._records = records
        self._node = node
        self._events = events
        self._waiting: dict[PodUid, _Outcome] = {}
        self._wake = asyncio.Event()
        self._told: set[tuple[PodUid, str]] = set()
        self._written: dict[PodUid, float] = {}

    def granted(self, pod: BoundPod) -> None:
        """Every container of the pod has its answer: the record is emptied and the phase is success."""
        if pod.phase == keys.PHASE_SUCCESS or self._just_written(pod.ref.uid):
            return
        emptied = keys.encode_devices([()] * len(pod.shares))
        notes = {self._records.to_allocate_annotation: emptied, keys.BIND_PHASE: keys.PHASE_SUCCESS}
        self._note(_Outcome(pod.ref, notes, {keys.NODE: self._node}))

    def refused(self, pod: BoundPod, reason: str, message: str) -> None:
        """kubelet fails the pod with our answer; the phase and an event say why."""
        self._event(pod, reason, message)
        self._note(_Outcome(pod.ref, {keys.BIND_PHASE: keys.PHASE_FAILED}, {}))

    def failed(self, pod: BoundPod, reason: str, message: str) -> None:
        """End the pod: its status becomes Failed, kubelet and its controller act on that."""
        self._event(pod, reason, message)
        self._note(_Outcome(pod.ref, {keys.BIND_PHASE: keys.PHASE_FAILED}, {}, (reason, message)))

    def told(self, pod: BoundPod, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """An event. A warning in the same words is told once, so whoever repeats it costs nothing."""
        if kind == "Normal" or (pod.ref.uid, reason + message) not in self._told:
            self._told.add((pod.ref.uid, reason + message))
            self._events.record(pod.ref, kind, reason, message)

    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._waiting.items())[:AT_ONCE]
            written = await asyncio.gather(*(self._write(outcome) for _, outcome in batch))
            for (uid, outcome), done in zip(batch, written, strict=True):
                if done and self._waiting.get(uid) is outcome:
                    del self._waiting[uid]
                    if outcome.labels:
                        now = _now()
                        recent = {one: at for one, at in self._written.items() if now - at < ECHO_S}
                        self._written = recent | {uid: now}
            if self._waiting:
                self._wake.set()
            if all(written):
                backoff.reset()
            else:
                await asyncio.sleep(backoff.wait())

    def forget(self, uid: PodUid) -> None:
        """The pod is gone."""
        self._told = {told for told in self._told if told[0] != uid}

    def _just_written(self, uid: PodUid) -> bool:
        """Whether the server has it that the pod is granted, and the watch may not have told us yet."""
        return _now() - self._written.get(uid, -ECHO_S) < ECHO_S

    def _note(self, outcome: _Outcome) -> None:
        before = self._waiting.get(outcome.pod.uid)
        if before is not None and before.failure is not None and outcome.failure is None:
            return  # a failure that ends the pod is the last word
        self._waiting[outcome.pod.uid] = outcome
        self._wake.set()

    def _event(self, pod: BoundPod, reason: str, message: str) -> None:
        if (pod.ref.uid, reason) not in self._told:
            self._told.add((pod.ref.uid, reason))
            self._events.record(pod.ref, "Warning", reason, message)

    async def _write(self, outcome: _Outcome) -> bool:
        """True when there is nothing more to do."""
        try:
            await self._patch(outcome)
        except NotFound:
            log.info("pod is gone, its outcome is dropped", extra={"pod": str(outcome.pod)})
        except Conflicted as fault:
            # Another pod of that name, or a busy moment: only the uid tells them apart.
            return await self._succeeded(outcome.pod, fault)
        except HamiError as fault:
            if isinstance(fault, ApiError) and fault.retry is Retry.NEVER:
                log.error("outcome refused by the API server", extra={"pod": str(outcome.pod), "fault": str(fault)})
                return True
            log.warning("outcome waits", extra={"pod": str(outcome.pod), "fault": str(fault)})
            return False
        return True

    async def _succeeded(self, pod: PodRef, fault: HamiError) -> bool:
        """Whether another pod has taken this one's name, so that its outcome is nobody's."""
        try:
            there = await self._kube.get(paths.pods(pod.namespace, pod.name), Pod)
        except NotFound:
            return True
        except HamiError as again:
            fault = again
        else:
            if there.metadata.uid != pod.uid:
                return True
        log.warning("outcome waits", extra={"pod": str(pod), "fault": str(fault)})
        return False

    async def _patch(self, outcome: _Outcome) -> None:
        pod = outcome.pod
        # The uid is a precondition: a successor of the same name must not get this pod's outcome.
        metadata = {"uid": pod.uid, "annotations": outcome.annotations} | (
            {"labels": outcome.labels} if outcome.labels else {}
        )
        await self._kube.patch(paths.pods(pod.namespace, pod.name), {"metadata": metadata})
        if outcome.failure is not None:
            reason, message = outcome.failure
            status = {"phase": "Failed", "reason": reason, "message": message[:1024]}
            path = paths.pods(pod.namespace, pod.name, "status")
            await self._kube.patch(path, {"metadata": {"uid": pod.uid}, "status": status})
