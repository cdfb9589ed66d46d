"""Events about pods and nodes: what a user reads in ``kubectl describe``.

Telling must never slow a decision: `record` only notes, a task of its own
writes, with a budget of its own, repeats counted on one Event as client-go does.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Literal, TypeVar

from msgspec import Struct

from hami.kube import paths
from hami.kube.backoff import Backoff
from hami.kube.client import Kube
from hami.kube.errors import ApiError, NotFound, Unauthorized
from hami.kube.pace import Bucket
from hami.model.ask import PodRef
from hami.model.errors import Malformed, Unavailable

log = logging.getLogger(__name__)
K = TypeVar("K")
V = TypeVar("V")
MESSAGE_BYTES = 1024
"""kube-apiserver refuses a longer note in events.k8s.io, and kubectl is not made for it."""
REPEAT_S = 600.0
"""How long an Event takes repeats before a new one is begun."""
SIMILAR = 10
"""Different messages of one object and reason within that time; more are combined."""
REMEMBERED = 4096

EventKind = Literal["Normal", "Warning"]


class Regarding(Struct, frozen=True):
    """What an event is about."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


def of_pod(pod: PodRef) -> Regarding:
    return Regarding("Pod", pod.name, pod.namespace, pod.uid)


def of_node(name: str) -> Regarding:
    """Kubelet names a node's events by the node's name in the place of the uid; kubectl looks for that."""
    return Regarding("Node", name, uid=name)


class Note(Struct):
    """An event to be written: told `repeats` times between `first` and `last` (Unix seconds)."""

    regarding: Regarding
    kind: EventKind
    reason: str
    message: str
    first: float
    last: float
    repeats: int = 1


class Written(Struct):
    """An Event of ours on the server, which takes the repeats."""

    name: str
    namespace: str
    count: int
    since: float


Subject = tuple[Regarding, EventKind, str]
Key = tuple[Regarding, EventKind, str, str]


class Recorder:
    """Notes events and writes them. `component` is the source that kubectl shows.

    qps, burst: the budget of API calls; most: notes held before the oldest are dropped.
    """

    def __init__(
        self,
        kube: Kube,
        component: str,
        host: str = "",
        *,
        qps: float = 20.0,
        burst: float = 100.0,
        most: int = 2000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._component = component
        self._host = host
        self._pace = Bucket(qps, burst)
        self._most = most
        self._now = now
        self._notes: OrderedDict[Key, Note] = OrderedDict()
        self._written: OrderedDict[Key, Written] = OrderedDict()
        self._messages: OrderedDict[Subject, tuple[float, set[str]]] = OrderedDict()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._serial = count(int(now() * 1e9))
        self.sent = 0
        self.dropped = 0
        """Notes that found no room, or that the server would not have."""

    def record(self, regarding: Regarding | PodRef, kind: EventKind, reason: str, message: str) -> None:
        """Note an event; returns at once, raises nothing."""
        if isinstance(regarding, PodRef):
            regarding = of_pod(regarding)
        now = self._now()
        message = self._combined((regarding, kind, reason), _cut(message), now)
        key = (regarding, kind, reason, message)
        note = self._notes.get(key)
        if note is not None:
            note.repeats += 1
            note.last = now
            return
        self._notes[key] = Note(regarding, kind, reason, message, now, now)
        if len(self._notes) > self._most:
            self._notes.popitem(last=False)
            self.dropped += 1
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            key, note = next(iter(self._notes.items()))
            await self._pace.take()
            try:
                await self._write(key, note)
            except (Unavailable, Unauthorized) as fault:
                log.info("event waits", extra={"why": str(fault)})
                await asyncio.sleep(backoff.wait())
                continue
            except (ApiError, Malformed) as fault:
                # A namespace that is going away refuses events; there is nobody left to read them.
                log.info("event refused", extra={"about": note.regarding.name, "why": str(fault)})
                self.dropped += 1
                self._notes.pop(key, None)
            backoff.reset()
            if not self._notes:
                self._wake.clear()
                self._idle.set()

    async def drain(self, timeout: float = 2.0) -> bool:  # noqa: ASYNC109 - a wait, not an operation
        """Wait, at shutdown, until all is written. False if that took too long."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # -- repeats -------------------------------------------------------------------

    def _combined(self, subject: Subject, message: str, now: float) -> str:
        """The message, or one for all once an object has had too many different ones."""
        since, messages = self._messages.get(subject, (now, set()))
        if now - since > REPEAT_S:
            since, messages = now, set()
        if message not in messages and len(messages) >= SIMILAR:
            return _cut("(combined from similar events): " + next(iter(sorted(messages))))
        messages.add(message)
        _remember(self._messages, subject, (since, messages))
        return message

    async def _write(self, key: Key, note: Note) -> None:
        repeats, last = note.repeats, note.last
        written = self._written.get(key)
        if written is not None and note.last - written.since <= REPEAT_S:
            try:
                await self._repeat(written, repeats, last)
            except NotFound:  # the server forgets events after an hour
                del self._written[key]
                await self._begin(key, note, repeats, last)
        else:
            await self._begin(key, note, repeats, last)
        self.sent += 1
        note.repeats -= repeats  # others may have come while we wrote
        if note.repeats <= 0:
            self._notes.pop(key, None)
        else:
            self._notes.move_to_end(key)

    async def _repeat(self, written: Written, repeats: int, last: float) -> None:
        body = {"count": written.count + repeats, "lastTimestamp": _stamp(last)}
        await self._kube.patch(paths.events(written.namespace, written.name), body, "merge")
        written.count += repeats

    async def _begin(self, key: Key, note: Note, repeats: int, last: float) -> None:
        regarding = note.regarding
        namespace = regarding.namespace or "default"  # where events of cluster-wide objects live
        name = f"{regarding.name[:230]}.{next(self._serial):x}"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "name": regarding.name,
                **({"namespace": regarding.namespace} if regarding.namespace else {}),
                **({"uid": regarding.uid} if regarding.uid else {}),
            },
            "type": note.kind,
            "reason": note.reason,
            "message": note.message,
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": _stamp(note.first),
            "lastTimestamp": _stamp(last),
            "count": repeats,
        }
        await self._kube.create(paths.events(namespace), body)
        _remember(self._written, key, Written(name, namespace, repeats, note.first))


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)


def _cut(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= MESSAGE_BYTES:
        return message
    return encoded[: MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "…"


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
