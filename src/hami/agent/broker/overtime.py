"""Who has more of a card's time than his limit, as NVML samples it, whatever his library says.

A program that registers and speaks the broker's protocol by itself, without the library, is held by nothing: its memory
NVML shows, its time this does. Beside neighbours samples swing by the second, so it takes half a minute and many points
beyond the limit until anything is said, and nobody is ended for it.
"""

from collections import deque
from collections.abc import Mapping

LOOKS = 30
"""Looks that are averaged, one a second."""
SLACK_PERCENT = 20.0
"""Points of the card beyond the limit. What is held to its limit is shown within 8 of it."""

Key = tuple[str, str]
"""Grant and card."""


class Overtime:
    """`held` at each look: percent had, and the limit, of each grant and card that NVML tells of."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Key, int], deque[float]] = {}
        self.over: dict[Key, float] = {}
        """Percent of the card, the mean of the last half minute; of those who had too much."""

    def look(self, held: Mapping[Key, tuple[float, int]]) -> list[Key]:
        """Those who are over now and were not at the look before. Another limit begins anew."""
        seen, over = {}, {}
        for key, (percent, limit) in held.items():
            last = seen[key, limit] = self._seen.get((key, limit), deque(maxlen=LOOKS))
            last.append(percent)
            mean = sum(last) / len(last)
            if len(last) == LOOKS and mean > limit + SLACK_PERCENT:
                over[key] = round(mean, 1)
        new = [key for key in over if key not in self.over]
        self._seen, self.over = seen, over
        return new
