"""What is done between two decisions, so that none waits for it: garbage is collected, and changed rows are looked at.

Python's collector would run in the middle of whatever makes the next object, for 0.4 to 3 ms by what it goes through.
Here it runs when an answer has gone out, by the same counts, and goes through everything when nobody has asked
anything for a second. Its own thresholds stay as a net that a scheduler which is never called would fall into.
"""

import gc
import time
from collections.abc import Callable

from hami.ledger.cluster import Ledger

READING = (200_000, 50, 100)
"""Thresholds while 50,000 pods are read, which makes no garbage but a million objects that the collector would go
through again and again: it took more time than all the rest."""
NET = (20_000, 10, 1_000)
"""Thresholds after that: dozens of decisions fit in between. A whole collection comes from here alone."""
YOUNG, MIDDLE, OLD = 700, 10, 10
"""More new objects, collections of them, and collections of the middle generation than these are due: as in Python."""
SELDOM, SELDOM_AT_WORK = 100, 1_000
"""A whole collection is followed by none for so many times what it took; the second where somebody always asks."""


class Between:
    """Of one process. `clock` is in seconds."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.perf_counter) -> None:
        self._ledger = ledger
        self._clock = clock
        self._before = gc.get_threshold()
        self._settled = False
        self._asked = False
        """Since the last look at what is idle."""
        self._took = 0.0
        self._ended = clock()

    def begin(self) -> None:
        """The cluster is about to be read."""
        gc.set_threshold(*READING)

    def settle(self) -> bool:
        """All is read, and lives as long as the process: once is enough for the collector to see it. Whether this was
        the time."""
        if self._settled:
            return False
        self._settled = True
        self._collect_all()
        gc.freeze()
        gc.set_threshold(*NET)
        return True

    def answered(self) -> None:
        """An answer has gone out."""
        self._asked = True
        self._ledger.look_ahead()
        new, middle, _ = gc.get_count()
        if new > YOUNG:
            gc.collect(1 if middle > MIDDLE else 0)

    def idle(self) -> None:
        """A second has passed."""
        asked, self._asked = self._asked, False
        rest = self._took * (SELDOM_AT_WORK if asked else SELDOM)
        if self._settled and gc.get_count()[2] > OLD and self._clock() - self._ended >= rest:
            self._collect_all()

    def end(self) -> None:
        """Leave the collector as it was."""
        gc.set_threshold(*self._before)

    def _collect_all(self) -> None:
        began = self._clock()
        gc.collect()
        self._ended = self._clock()
        self._took = self._ended - began
