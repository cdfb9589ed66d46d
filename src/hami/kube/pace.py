"""A token bucket: so many calls a second, a burst above it. Fair: first come, first served."""

import asyncio
import time
from collections.abc import Callable


class Bucket:
    """`rate` calls a second, up to `burst` at once. `take` returns when a call may go out."""

    def __init__(self, rate: float, burst: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be above 0, not {rate}")
        self.rate = rate
        self.burst = max(1.0, rate if burst is None else burst)
        self._clock = clock
        self._tokens = self.burst
        self._filled_at = clock()

    def reserve(self) -> float:
        """Take one token now, on credit if need be; seconds to wait before using it.

        Credit keeps the order: who comes later waits longer, without a queue.
        """
        self._fill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self.rate)

    def spare(self) -> bool:
        """Take one token if there is one; for what may as well be left out."""
        self._fill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now

    async def take(self) -> None:
        wait = self.reserve()
        if wait > 0.0:
            await asyncio.sleep(wait)
