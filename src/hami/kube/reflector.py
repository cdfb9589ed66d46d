"""The state machine of list and watch: pages and lines in, changes out. Sans I/O.

Keeps uid and version of each object and nothing else; the consumer keeps what
it needs. `kube.watch` feeds it. Its promise, whatever happens between us and
the server: the changes, applied in order, end in the server's state, each
object's versions only rise, and nothing comes twice.

Versions are compared as numbers, as kube-apiserver has always made them
and KEP-5504 promises.
"""

from collections.abc import Iterator, Sequence
from sys import intern
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from hami.kube import errors
from hami.kube.page import Object, Page, Unreadable, frame_decoder, raw_frames, read
from hami.wire.objects import Metadata

T = TypeVar("T", bound=Object)
INITIAL_END = "k8s.io/initial-events-end"
TOMBSTONES = 4096
"""Deleted uids remembered against late events. A real server needs none; a bookmark clears them."""


class Added(Struct, Generic[T], frozen=True):
    object: T


class Modified(Struct, Generic[T], frozen=True):
    object: T


class Deleted(Struct, Generic[T], frozen=True):
    """Gone. `object` is its last state, None where it vanished while nobody looked."""

    namespace: str
    name: str
    uid: str
    object: T | None = None


class Broken(Struct, frozen=True):
    """There, but unreadable. If it was readable before, what is known of it is out of date."""

    metadata: Metadata
    problem: str


class Synced(Struct, frozen=True):
    """A list is complete: all that exists has been told, all that vanished has been told too."""

    count: int
    version: str


Event = Added[T] | Modified[T] | Deleted[T] | Broken | Synced


class Seen(Struct, gc=False):
    """What is kept of an object: 40 bytes and its uid."""

    uid: str
    version: int


Key = tuple[str, str]
"""Namespace and name."""


class Reflector(Generic[T]):
    """One collection, followed. Drive it as `watching` says."""

    def __init__(self, type: type[T]) -> None:  # noqa: A002
        self._type = type
        self._frames = frame_decoder(type)
        self._known: dict[Key, Seen] = {}
        self._unseen: set[Key] | None = None
        self._streaming = False
        self._latest = -1
        self._floor = -1
        self._tombstones: dict[str, int] = {}
        self.version = ""
        """Where a watch may go on from."""

    def __len__(self) -> int:
        return len(self._known)

    @property
    def watching(self) -> bool:
        """Whether a watch from `version` is next; else a list is."""
        return bool(self.version) and self._unseen is None

    # -- lists ----------------------------------------------------------------

    def begin(self, *, streaming: bool = False) -> None:
        """A list starts, by pages or (`streaming`) as the first events of a watch. May restart one."""
        self._unseen = set(self._known)
        self._streaming = streaming

    def page(self, page: Page[T]) -> Iterator[Event[T]]:
        """Changes that a page of the list shows. A list is the truth: also when it goes back in time,
        as after a restore of etcd, an object whose version differs has changed.
        """
        assert self._unseen is not None, "page() outside begin() and end()"
        for item in page.items:
            yield from self._listed(item.metadata, item)
        for broken in page.unreadable:
            yield from self._broken(broken)

    def end(self, version: str) -> Iterator[Event[T]]:
        """The list was complete as of `version`: what it did not show is gone."""
        assert self._unseen is not None, "end() outside of a list"
        vanished, self._unseen, self._streaming = self._unseen, None, False
        for namespace, name in sorted(vanished):
            uid = self._known.pop((namespace, name)).uid
            yield Deleted(namespace, name, uid)
        self._settle(version)
        yield Synced(len(self._known), version)

    def lost(self) -> None:
        """The server's history no longer reaches back to `version`: a list is next."""
        self.version = ""
        self._unseen = None

    # -- watches --------------------------------------------------------------

    def line(self, line: bytes) -> Sequence[Event[T]]:
        """Changes of one line of a watch. Raises what an ERROR line says, `Gone` among them."""
        # The server writes the type first; a bookmark's or an error's object is not of our type.
        if line.startswith((b'{"type":"ADDED"', b'{"type":"MODIFIED"', b'{"type":"DELETED"')):
            try:
                frame = self._frames.decode(line)
            except msgspec.MsgspecError:
                return self._other(line)
            return self._change(frame.type, frame.object)
        return self._other(line)

    def _other(self, line: bytes) -> Sequence[Event[T]]:
        try:
            frame = raw_frames.decode(line)
        except msgspec.MsgspecError as fault:
            raise errors.Unanswered(
                f"watch: a line that is no event ({fault}): {errors.cut(repr(line[:300]))}"
            ) from fault
        if frame.type == "BOOKMARK":
            return self._bookmark(msgspec.json.decode(frame.object, type=_Bookmark).metadata)
        if frame.type == "ERROR":
            status = msgspec.json.decode(frame.object, type=errors.Status)
            raise errors.from_status(status, status.code)
        found = read(frame.object, self._type)
        if isinstance(found, Unreadable):
            return list(self._broken(found))
        return self._change(frame.type, found)

    def _bookmark(self, metadata: Metadata) -> Sequence[Event[T]]:
        if self._unseen is not None:
            if INITIAL_END not in (metadata.annotations or {}):
                return ()
            if _number(metadata.resource_version) < self._latest:
                # The server went back in time: a streamed list cannot tell old from new, a paged one can.
                self.lost()
                raise errors.Gone(410, "Expired", "the server's version is older than what it told before")
            return list(self.end(metadata.resource_version))
        self._settle(metadata.resource_version)
        return ()

    def _settle(self, version: str) -> None:
        """All up to `version` is known: whatever comes with a lower one is late."""
        self.version = version
        self._floor = self._latest = _number(version)
        self._tombstones.clear()

    def _change(self, verb: str, item: T) -> Sequence[Event[T]]:
        metadata = item.metadata
        version = _number(metadata.resource_version)
        if self._unseen is not None:
            if not self._streaming:
                raise errors.Unanswered("watch: an event while a list is read by pages")
            if verb == "DELETED":
                return self._deleted(metadata, version, item)
            self._unseen.discard((metadata.namespace, metadata.name))
            return self._written(metadata, version, item)
        if 0 <= version <= self._floor:
            return ()
        if version > self._latest:
            self._latest = version
            self.version = metadata.resource_version
        if verb == "DELETED":
            return self._deleted(metadata, version, item)
        return self._written(metadata, version, item)

    # -- what a change means ---------------------------------------------------

    def _written(self, metadata: Metadata, version: int, item: T) -> Sequence[Event[T]]:
        key = (metadata.namespace, metadata.name)
        seen = self._known.get(key)
        if seen is None:
            if 0 <= version <= self._tombstones.get(metadata.uid, -1):
                return ()
            self._remember(metadata, version)
            return (Added(item),)
        if 0 <= version <= seen.version:
            return ()  # told already, or a late word of an object that had this name before
        if seen.uid == metadata.uid:
            seen.version = version
            return (Modified(item),)
        self._bury(seen.uid, version)
        self._remember(metadata, version)
        return (Deleted(metadata.namespace, metadata.name, seen.uid), Added(item))

    def _deleted(self, metadata: Metadata, version: int, item: T) -> Sequence[Event[T]]:
        key = (metadata.namespace, metadata.name)
        self._bury(metadata.uid, version)
        seen = self._known.get(key)
        if seen is None or 0 <= version < seen.version:
            return ()
        del self._known[key]
        if self._unseen is not None:
            self._unseen.discard(key)
        if seen.uid != metadata.uid:
            self._bury(seen.uid, version)
            return (Deleted(metadata.namespace, metadata.name, seen.uid),)
        return (Deleted(metadata.namespace, metadata.name, metadata.uid, item),)

    def _listed(self, metadata: Metadata, item: T) -> Iterator[Event[T]]:
        key = (metadata.namespace, metadata.name)
        version = _number(metadata.resource_version)
        assert self._unseen is not None
        self._unseen.discard(key)
        seen = self._known.get(key)
        if seen is not None and seen.uid == metadata.uid:
            if seen.version != version or version < 0:
                seen.version = version
                yield Modified(item)
            return
        self._remember(metadata, version)
        if seen is not None:
            yield Deleted(metadata.namespace, metadata.name, seen.uid)
        yield Added(item)

    def _broken(self, broken: Unreadable) -> Iterator[Event[T]]:
        """Told each time it is seen: there is no reading to compare with. Known under version -1,
        so that the next readable one is a change.
        """
        metadata = broken.metadata
        if not metadata.name:
            return
        key = (metadata.namespace, metadata.name)
        if self._unseen is not None:
            self._unseen.discard(key)
        seen = self._known.get(key)
        self._remember(metadata, -1)
        if seen is not None and seen.uid != metadata.uid:
            yield Deleted(metadata.namespace, metadata.name, seen.uid)
        yield Broken(metadata, broken.problem)

    def _remember(self, metadata: Metadata, version: int) -> None:
        self._known[intern(metadata.namespace), metadata.name] = Seen(metadata.uid, version)

    def _bury(self, uid: str, version: int) -> None:
        self._tombstones[uid] = max(version, self._tombstones.get(uid, -1))
        while len(self._tombstones) > TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]


class _Bookmark(Struct, frozen=True):
    metadata: Metadata = Metadata()


def _number(version: str) -> int:
    """-1 for one that is no number; such a version is never taken for old."""
    return int(version) if version.isdecimal() else -1
