"""The truth of the simulated API server: objects, versions, history, and the rules of writing.

Knows no time of its own, no network and no faults; objects are plain JSON
values that are never changed once stored. Refusals are `kube.errors`.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from hami.sim.apiserver.patch import apply, merge
from hami.sim.apiserver.route import Place, refuse
from hami.sim.apiserver.select import Json, Match

Key = tuple[str, str]
"""Namespace (empty for cluster-wide) and name."""


class Stored(Struct):
    """One version of an object; its bytes are made once for all watchers."""

    value: Json
    _bytes: bytes = b""

    @property
    def encoded(self) -> bytes:
        self._bytes = self._bytes or msgspec.json.encode(self.value)
        return self._bytes


class Change(Struct):
    """One write. `before` None for a creation; `gone` for a deletion, with the last state as `after`."""

    version: int
    resource: str
    before: Stored | None
    after: Stored
    gone: bool = False


class Store:
    """All objects and the history of their changes since the last compaction."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._objects: dict[str, dict[Key, Stored]] = {}
        self._uids = 0
        self.version = 1
        self.history: list[Change] = []
        self.compacted = 0
        """Changes up to this version are forgotten."""
        self.on_change: list[Callable[[Change], None]] = []

    # -- reading --------------------------------------------------------------

    def get(self, place: Place) -> Stored:
        found = self._of(place.resource).get((place.namespace or "", place.name or ""))
        if found is None:
            raise refuse(404, "NotFound", f'{place.plural} "{place.name}" not found')
        return found

    def list(self, resource: str, namespace: str | None = None, match: Match | None = None) -> "list[Stored]":
        """In the order of etcd's keys: namespace, then name."""
        return [
            stored
            for (place, _), stored in sorted(self._of(resource).items())
            if (namespace is None or place == namespace) and (match is None or match(stored.value))
        ]

    def check(self, version: int) -> None:
        """Raises `Gone` when the history does not reach back so far."""
        if version < self.compacted:
            raise refuse(410, "Expired", f"too old resource version: {version} ({self.compacted})")

    def changes_after(self, version: int) -> Iterator[Change]:
        self.check(version)
        start = bisect_right(self.history, version, key=lambda change: change.version)
        yield from self.history[start:]

    def compact(self, version: int | None = None) -> None:
        """Forget history up to `version`, or all of it: watches from before get 410."""
        self.compacted = self.version if version is None else version
        self.history = [change for change in self.history if change.version > self.compacted]

    # -- writing --------------------------------------------------------------

    def create(self, place: Place, body: Json) -> Stored:
        metadata = dict(body.get("metadata") or {})
        if "name" not in metadata and "generateName" in metadata:
            metadata["name"] = f"{metadata['generateName']}{self._uids:05x}"
        name = metadata.get("name")
        if not name:
            raise refuse(
                422, "Invalid", f"{place.kind}: metadata.name: Required value: name or generateName is required"
            )
        key = (place.namespace or "", name)
        if key in self._of(place.resource):
            raise refuse(409, "AlreadyExists", f'{place.plural} "{name}" already exists')
        self._uids += 1
        metadata |= {"uid": f"00000000-0000-4000-8000-{self._uids:012x}", "creationTimestamp": self.stamp()}
        if place.namespace is not None:
            metadata["namespace"] = place.namespace
        value = {"kind": place.kind, "apiVersion": place.api_version, **body, "metadata": metadata}
        if place.plural == "pods":
            value["status"] = {"phase": "Pending", **(value.get("status") or {})}
        return self._write(place.resource, key, None, value)

    def replace(self, place: Place, body: Json) -> Stored:
        """With a resourceVersion in the body only if it is the current one."""
        old = self.get(place)
        return self._update(place, old, body)

    def patch(self, place: Place, body: Any, kind: str) -> Stored:
        """Kinds ``merge`` and ``json``; ``strategic`` is taken as merge, so it must not hold lists."""
        old = self.get(place)
        new = apply(old.value, body) if kind == "json" else merge(old.value, body)
        return self._update(place, old, new)

    def delete(self, place: Place, options: Json | None = None) -> Stored:
        """A running pod on a node is only marked, as its kubelet removes it, and so is what has finalizers."""
        old = self.get(place)
        options = options or {}
        self._preconditions(place, old, options.get("preconditions") or {})
        at_once = options.get("gracePeriodSeconds") == 0 or place.plural != "pods" or not _runs(old.value)
        if at_once and place.plural != "pods" and not old.value["metadata"].get("finalizers"):
            return self._remove(place, old)
        old = self._mark(place, old, 0 if at_once else 30)
        return old if not at_once or old.value["metadata"].get("finalizers") else self._remove(place, old)

    def _mark(self, place: Place, old: Stored, grace: int) -> Stored:
        """Pods that go are marked first, also when they go at once: that is a write and an event of its own."""
        marked = old.value["metadata"].get("deletionGracePeriodSeconds")
        if marked is not None and marked <= grace:
            return old
        mark = {"deletionTimestamp": self.stamp(), "deletionGracePeriodSeconds": grace}
        return self._write(place.resource, self._key(place), old, merge(old.value, {"metadata": mark}))

    def bind(self, place: Place, body: Json) -> None:
        """pods/binding: node name and annotations in one write, guarded by uid and version."""
        metadata = body.get("metadata") or {}
        if metadata.get("name") not in (None, "", place.name):
            raise refuse(
                400, "BadRequest", f"name in URL ({place.name}) does not match name in Binding ({metadata['name']})"
            )
        target = (body.get("target") or {}).get("name")
        if not target:
            raise refuse(422, "Invalid", "Binding: target.name: Required value")
        old = self.get(place)
        self._preconditions(place, old, {key: metadata[key] for key in ("uid", "resourceVersion") if metadata.get(key)})
        pod = old.value
        if "deletionTimestamp" in pod["metadata"]:
            raise refuse(409, "Conflict", f"pod {place.name} is being deleted, cannot be assigned to a host")
        if there := _node(pod):
            raise refuse(409, "Conflict", f'pod {place.name} is already assigned to node "{there}"')
        change = {"metadata": {"annotations": metadata.get("annotations") or {}}, "spec": {"nodeName": target}}
        self._write(place.resource, self._key(place), old, merge(pod, change))

    # -- rules ----------------------------------------------------------------

    def _update(self, place: Place, old: Stored, new: Json) -> Stored:
        before, after = old.value["metadata"], dict(new.get("metadata") or {})
        wanted = {key: after[key] for key in ("uid", "resourceVersion") if after.get(key)}
        self._preconditions(place, old, wanted)
        if place.plural == "pods" and place.sub is None and _node(new) != _node(old.value):
            raise refuse(
                422, "Invalid", f'Pod "{place.name}" is invalid: spec: Forbidden: pod updates may not change fields'
            )
        for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
            if key in before:
                after[key] = before[key]
        value = {**new, "kind": place.kind, "apiVersion": place.api_version, "metadata": after}
        if place.sub == "status":  # a status call changes status and annotations, and nothing else
            value = {**old.value, "metadata": after, "status": new.get("status") or {}}
        elif place.plural in ("pods", "nodes") and "status" in old.value:
            value["status"] = old.value["status"]
        after["resourceVersion"] = before["resourceVersion"]
        if value == old.value:
            return old  # a write that changes nothing makes no version and no event
        if "deletionTimestamp" in before and before.get("finalizers") and not after.get("finalizers"):
            return self._remove(place, old)
        return self._write(place.resource, self._key(place), old, value)

    @staticmethod
    def _preconditions(place: Place, old: Stored, wanted: Json) -> None:
        for field, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            want, have = wanted.get(field), old.value["metadata"][field]
            if want is not None and want != have:
                raise refuse(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {place.plural} "{place.name}": Precondition failed: '
                    f"{title} in precondition: {want}, {title} in object meta: {have}",
                )

    def _write(self, resource: str, key: Key, old: Stored | None, value: Json) -> Stored:
        stored = self._versioned(value)
        self._of(resource)[key] = stored
        self._note(Change(self.version, resource, old, stored))
        return stored

    def _remove(self, place: Place, old: Stored) -> Stored:
        del self._of(place.resource)[self._key(place)]
        last = self._versioned(old.value)  # a deletion has a version of its own
        self._note(Change(self.version, place.resource, old, last, gone=True))
        return last

    def _versioned(self, value: Json) -> Stored:
        self.version += 1
        return Stored({**value, "metadata": {**value["metadata"], "resourceVersion": str(self.version)}})

    def _note(self, change: Change) -> None:
        self.history.append(change)
        for tell in self.on_change:
            tell(change)

    def _of(self, resource: str) -> dict[Key, Stored]:
        return self._objects.setdefault(resource, {})

    @staticmethod
    def _key(place: Place) -> Key:
        return (place.namespace or "", place.name or "")

    def stamp(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))


def _node(pod: Json) -> str | None:
    node: str | None = (pod.get("spec") or {}).get("nodeName")
    return node


def _runs(pod: Json) -> bool:
    return _node(pod) is not None and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
