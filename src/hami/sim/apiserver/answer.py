"""One request on the simulated server: method, path and bytes in, bytes out. Sans I/O.

Watches are not answered here but opened (`watch_of`), for they go on.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from hami.sim.apiserver.cursor import Cursor
from hami.sim.apiserver.route import Place, parse, refuse
from hami.sim.apiserver.select import selector
from hami.sim.apiserver.store import Store, Stored

PATCHES = {
    "application/merge-patch+json": "merge",
    "application/json-patch+json": "json",
    "application/strategic-merge-patch+json": "strategic",
}
SUCCESS = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}'
Query = Mapping[str, str]


class Desk:
    """Answers requests on a `Store`; remembers the rest of lists that are read by pages."""

    def __init__(self, store: Store, *, watch_lists: bool = True) -> None:
        self.store = store
        self._watch_lists = watch_lists
        self._rests: dict[str, tuple[int, list[Stored]]] = {}

    def answer(
        self, method: str, path: str, query: Query, body: bytes = b"", content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and body. Raises `ApiError` for what a client gets as such."""
        place = parse(path)
        if method == "GET":
            return 200, self.store.get(place).encoded if place.name else self._list(place, query)
        if method == "POST":
            return 201, self._post(place, _decoded(body))
        if place.name is None:
            raise refuse(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if method == "PUT":
            return 200, self.store.replace(place, _decoded(body)).encoded
        if method == "PATCH":
            kind = PATCHES.get(content_type)
            if kind is None:
                raise refuse(
                    415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {content_type}"
                )
            return 200, self.store.patch(place, _decoded(body), kind).encoded
        if method == "DELETE":
            return 200, self.store.delete(place, _decoded(body) if body else None).encoded
        raise refuse(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def watch_of(self, path: str, query: Query) -> tuple[Cursor, list[bytes]]:
        """An opened watch and its first lines. Raises `Gone` for a version that is forgotten."""
        place = parse(path)
        match = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        streamed = query.get("sendInitialEvents") == "true"
        if streamed and not self._watch_lists:
            raise refuse(422, "Invalid", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch")
        version = query.get("resourceVersion", "")
        fresh = streamed or version in ("", "0")
        since = self.store.version if fresh else int(version)
        cursor = Cursor(self.store, place.resource, place.kind, namespace=place.namespace, match=match, since=since)
        return cursor, cursor.initial(end=streamed) if fresh else cursor.read()

    def _post(self, place: Place, body: Any) -> bytes:
        if place.plural == "pods" and place.sub == "binding":
            self.store.bind(place, body)
            return SUCCESS
        if place.plural == "pods" and place.sub == "eviction":
            self.store.delete(place, body.get("deleteOptions"))
            return SUCCESS
        return self.store.create(place, body).encoded

    def _list(self, place: Place, query: Query) -> bytes:
        token, limit = query.get("continue", ""), int(query.get("limit", 0))
        if token:
            version, found = self._rest(token)
        else:
            match = selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
            version, found = self.store.version, self.store.list(place.resource, place.namespace, match)
        metadata: dict[str, str | int] = {"resourceVersion": str(version)}
        if limit and len(found) > limit:
            token = f"{version}-{len(self._rests)}"
            self._rests[token] = (version, found[limit:])
            metadata |= {"continue": token, "remainingItemCount": len(found) - limit}
            found = found[:limit]
        head = {"kind": f"{place.kind}List", "apiVersion": place.api_version, "metadata": metadata}
        items = b",".join(stored.encoded for stored in found)
        return msgspec.json.encode(head)[:-1] + b',"items":[' + items + b"]}"

    def _rest(self, token: str) -> tuple[int, list[Stored]]:
        version, found = self._rests.get(token, (-1, []))
        if version < self.store.compacted:
            raise refuse(410, "Expired", "The provided continue parameter is too old")
        return version, found


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError as fault:
        raise refuse(400, "BadRequest", f"the object provided is unrecognized: {fault}") from fault
