"""A watch on the simulated server: its place in the history, and the lines from there on. Sans I/O."""

from collections.abc import Iterator

import msgspec

from hami.sim.apiserver.select import Match
from hami.sim.apiserver.store import Change, Store, Stored

INITIAL_END = "k8s.io/initial-events-end"


class Cursor:
    """One watch. `read` gives the lines that are there now."""

    def __init__(
        self,
        store: Store,
        resource: str,
        kind: str,
        *,
        namespace: str | None = None,
        match: Match | None = None,
        since: int = 0,
    ) -> None:
        self._store = store
        self._resource = resource
        self._kind = kind
        self._namespace = namespace
        self._match = match
        self.position = since
        store.check(since)

    def initial(self, *, end: bool) -> list[bytes]:
        """All that exists now, as additions; with `end` closed by the bookmark that says so."""
        lines = [line("ADDED", stored) for stored in self._store.list(self._resource, self._namespace, self._match)]
        self.position = self._store.version
        return [*lines, self.bookmark(initial_end=True)] if end else lines

    def read(self) -> list[bytes]:
        """Lines since the last call. Raises `Gone` when the history was compacted past our place."""
        lines = [found for change in self._store.changes_after(self.position) for found in self._lines(change)]
        self.position = self._store.version
        return lines

    def bookmark(self, *, initial_end: bool = False) -> bytes:
        """All up to our place has been sent."""
        metadata: dict[str, object] = {"resourceVersion": str(self.position), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {INITIAL_END: "true"}
        value = {"kind": self._kind, "apiVersion": "v1", "metadata": metadata, "spec": {"containers": None}}
        return line("BOOKMARK", Stored(value))

    def _lines(self, change: Change) -> Iterator[bytes]:
        """With a selector, an object that leaves the selection is deleted and one that enters is added."""
        if change.resource != self._resource:
            return
        if self._namespace is not None and change.after.value["metadata"].get("namespace") != self._namespace:
            return
        was = change.before is not None and self._selected(change.before)
        now = not change.gone and self._selected(change.after)
        if now:
            yield line("MODIFIED" if was else "ADDED", change.after)
        elif was:
            yield line("DELETED", self._left(change))

    def _left(self, change: Change) -> Stored:
        """The last state that was selected, under the version of the change that ended it."""
        if change.gone or change.before is None:
            return change.after
        value = change.before.value
        return Stored({**value, "metadata": {**value["metadata"], "resourceVersion": str(change.version)}})

    def _selected(self, stored: Stored) -> bool:
        return self._match is None or self._match(stored.value)


def line(verb: str, stored: Stored) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (verb.encode(), stored.encoded)


def error_line(code: int, reason: str, message: str) -> bytes:
    """How a watch that has answered 200 already says that it failed."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return b'{"type":"ERROR","object":%s}\n' % msgspec.json.encode(status)
