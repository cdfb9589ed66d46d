"""So much time for several parts in turn: each has an equal share of what is left, and leaves what it does not need.

For searches that are good enough at any time and better with more of it. Knows nothing of what is searched.
"""

from collections.abc import Callable


class Shares:
    """`clock` and `seconds` are of one unit; the time begins with this."""

    def __init__(self, clock: Callable[[], float], seconds: float, parts: int) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._left = parts

    @property
    def over(self) -> bool:
        """Whether all of the time has passed."""
        return self._clock() >= self._end

    def next(self) -> Callable[[], bool]:
        """Begin the next part: tells whether its share has passed."""
        now = self._clock()
        end = now + (self._end - now) / max(self._left, 1)
        self._left -= 1
        return lambda: self._clock() >= end
