"""So many at once, and so many a second after that: how much of something one client, or one container, may have."""


class Allowance:
    """Times are seconds of the broker's clock."""

    def __init__(self, a_second: float, at_once: float, now: float) -> None:
        self._a_second = a_second
        self._at_once = at_once
        self._left = at_once
        self._filled = now

    def take(self, now: float) -> bool:
        """One more. False: that was too much; it is not counted."""
        self._left = min(self._at_once, self._left + (now - self._filled) * self._a_second)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
