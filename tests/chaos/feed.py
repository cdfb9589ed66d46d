"""One watch of a replica: list by pages or as a stream, watch, cut, resume, a step at a time."""

import random
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hami.kube.errors import Gone
from hami.kube.page import Object, decode_page
from hami.kube.reflector import Event, Reflector
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.cursor import Cursor, error_line
from hami.sim.apiserver.faults import Faults

T = TypeVar("T", bound=Object)
PAGE = 3


class Feed(Generic[T]):
    """Follows `path` into `consumer`, as `kube.watch.follow` does with a real connection."""

    def __init__(
        self,
        desk: Desk,
        faults: Faults,
        path: str,
        type: type[T],  # noqa: A002
        consumer: Callable[[Event[T]], None],
    ) -> None:
        self._desk = desk
        self._faults = faults
        self._path = path
        self._type: Any = type
        self._consumer = consumer
        self._reflector: Reflector[T] = Reflector(type)
        self._cursor: Cursor | None = None
        self._sent: list[bytes] = []
        self._token: str | None = None
        self._version = ""

    @property
    def quiet(self) -> bool:
        """Whether all that the server has to tell was heard."""
        if self._cursor is None or not self._reflector.watching:
            return False
        return self._cursor.position == self._desk.store.version

    def step(self, chance: random.Random) -> None:
        try:
            self._step(streamed=chance.random() < 0.5)
        except Gone:
            self.cut()
            self._reflector.lost()

    def bookmark(self) -> None:
        if self._cursor is not None and self._reflector.watching:
            try:
                self._deliver([*self._cursor.read(), self._cursor.bookmark()])
            except Gone:
                self.cut()
                self._reflector.lost()

    def cut(self) -> None:
        self._cursor = None
        self._token = None

    def _step(self, *, streamed: bool) -> None:
        if self._cursor is not None:
            self._deliver(self._cursor.read())
        elif self._reflector.watching:
            self._open({"resourceVersion": self._reflector.version})
        elif streamed and self._token is None:
            self._reflector.begin(streaming=True)
            self._open({"sendInitialEvents": "true"})
        else:
            self._page()

    def _open(self, query: dict[str, str]) -> None:
        self._sent = []
        self._cursor, lines = self._desk.watch_of(self._path, query)
        self._deliver(lines)

    def _page(self) -> None:
        query = {"limit": str(PAGE)}
        if self._token is None:
            self._reflector.begin()
        else:
            query["continue"] = self._token
        _, answer = self._desk.answer("GET", self._path, query)
        page = decode_page(answer, self._type, self._path)
        if self._token is None:
            self._version = page.version
        for event in self._reflector.page(page):
            self._consumer(event)
        self._token = page.next or None
        if self._token is None:
            for event in self._reflector.end(self._version):
                self._consumer(event)

    def _deliver(self, lines: list[bytes]) -> None:
        delivery = self._faults.deliver(lines, self._sent)
        for chunk in delivery.chunks:
            if chunk.endswith(b"\n"):
                for event in self._reflector.line(chunk[:-1]):
                    self._consumer(event)
        if delivery.gone:
            self._reflector.line(error_line(410, "Expired", "by chance")[:-1])
        if delivery.cut:
            self.cut()
