"""How long to wait before trying again: longer each time, never two clients in step."""

import random
from collections.abc import Callable


class Backoff:
    """Exponential with half of it jitter. `reset` after a success."""

    def __init__(
        self, first: float = 0.2, most: float = 30.0, chance: Callable[[], float] = random.random, factor: float = 2.0
    ) -> None:
        self._first = first
        self._most = most
        self._factor = factor
        self._chance = chance
        self._next = first

    def wait(self) -> float:
        """Seconds to wait now, between half of the step and the whole."""
        step = self._next
        self._next = min(self._most, step * self._factor)
        return step * (0.5 + 0.5 * self._chance())

    def reset(self) -> None:
        self._next = self._first
