"""Runs blocking driver calls in one thread of their own, in order, for the loop.

A sick card can hold a call for seconds or for ever. The loop then hears of it
(`Stuck`) and goes on; the thread stays where it is, and is a daemon, so it cannot
keep the process from ending either. Knows nothing of what it runs.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from hami.model.errors import Unavailable

R = TypeVar("R")
Task = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Stuck(Unavailable):
    """The thread has been in one call for too long; nothing can be asked until it returns."""


class Worker:
    """One thread and its queue. Use it from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None

    async def run(self, call: Callable[[], R], timeout: float = 60.0) -> R:  # noqa: ASYNC109 - the call goes on
        """The call's answer, or its exception. Raises Stuck after `timeout` seconds; the call is not ended by that."""
        loop = asyncio.get_running_loop()
        if self._busy_since is not None and time.monotonic() - self._busy_since > timeout:
            raise Stuck(self._complaint())
        self._start()
        answer: asyncio.Future[R] = loop.create_future()
        self._tasks.put((call, loop, answer))
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(answer)
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                return answer.result()  # it came, or was a TimeoutError of its own
            raise Stuck(self._complaint()) from None
        finally:
            answer.cancel()  # a task still in the queue that nobody waits for is not begun

    def close(self) -> None:
        """No more calls. Returns at once, whatever the thread is doing."""
        self._tasks.put(None)

    def _complaint(self) -> str:
        since = self._busy_since
        waited = f"for {time.monotonic() - since:.0f} s" if since is not None else "in time"
        return f"{self._name}: the driver has not answered {waited}"

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            call, loop, answer = task
            if answer.cancelled():
                continue
            self._busy_since = time.monotonic()
            outcome: Callable[[], None]
            try:
                result = call()
            except BaseException as fault:  # noqa: BLE001, RUF100 - it is the caller's, whatever it is
                outcome = _Outcome(answer, fault=fault)
            else:
                outcome = _Outcome(answer, result=result)
            self._busy_since = None
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(outcome)


class _Outcome:
    """Sets a future in its loop, unless nobody waits for it any more."""

    def __init__(self, answer: "asyncio.Future[Any]", result: Any = None, fault: BaseException | None = None) -> None:
        self._answer = answer
        self._result = result
        self._fault = fault

    def __call__(self) -> None:
        if self._answer.done():
            return
        if self._fault is None:
            self._answer.set_result(self._result)
        else:
            self._answer.set_exception(self._fault)
