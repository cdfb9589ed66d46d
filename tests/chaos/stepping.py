"""Coroutines without an event loop: each await of the simulated network is a point where anything may come between."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class Pause:
    """Something is on its way; the schedule decides when it arrives."""

    def __await__(self) -> Generator["Pause", None, None]:
        yield self


class Task:
    """A coroutine that is moved by hand."""

    def __init__(self, work: Coroutine[Any, Any, bytes | None], title: str) -> None:
        self._work = work
        self.title = title
        self.done = False
        self.result: bytes | None = None
        self.step()

    def step(self) -> None:
        """Go on to the next await. A fault of the work's is the test's."""
        if self.done:
            return
        try:
            self._work.send(None)
        except StopIteration as end:
            self.done, self.result = True, end.value

    def finish(self) -> None:
        while not self.done:
            self.step()

    def cancel(self) -> None:
        """As aiohttp and asyncio do it: the await raises, and what comes after it runs."""
        if self.done:
            return
        try:
            self._work.throw(asyncio.CancelledError())
        except (asyncio.CancelledError, StopIteration):
            self.done = True
        else:
            self.finish()
