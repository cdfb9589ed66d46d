"""Pods that no node could take: what they ask, since when, and what was said.

The table is what "queue depth" means here, and what a freed slice is matched
against. It forgets a pod that is placed, gone, or not asked about for long.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from hami.model.ask import Ask
from hami.model.ids import PodUid

FORGET_AFTER = 900.0
"""Seconds. kube-scheduler retries every pod at least each 5 minutes; thrice that is gone."""


class Waiter(Struct):
    """One refused pod. Times are seconds of the process's monotonic clock."""

    ask: Ask
    since: float
    tried: float
    offered: Sequence[str] = ()
    """Nodes it was last tried on, those kube-scheduler has nothing against; kept only for a pod that may preempt."""
    held_back: str = ""
    """What kept it from nodes whose cards would do, when it was last tried: its gang, or room made for others."""
    told: str = ""
    """Last refusal told in an event, so that a repeat is not told again."""


class Waiting:
    """Refused pods by uid."""

    def __init__(self) -> None:
        self._waiters: dict[PodUid, Waiter] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def refused(self, ask: Ask, now: float) -> Waiter:
        """Note a refusal; the first one starts the wait."""
        waiter = self._waiters.get(ask.pod.uid)
        if waiter is None:
            waiter = self._waiters[ask.pod.uid] = Waiter(ask, now, now)
        waiter.ask, waiter.tried = ask, now
        return waiter

    def settled(self, uid: PodUid) -> Waiter | None:
        """The pod waits no more: placed or gone."""
        return self._waiters.pop(uid, None)

    def get(self, uid: PodUid) -> Waiter | None:
        return self._waiters.get(uid)

    def in_order(self) -> Iterable[Waiter]:
        """Highest priority first, then longest wait: who should be woken first."""
        return sorted(self._waiters.values(), key=lambda waiter: (-waiter.ask.priority, waiter.since))

    def forget_old(self, now: float) -> None:
        for uid in [uid for uid, waiter in self._waiters.items() if now - waiter.tried > FORGET_AFTER]:
            del self._waiters[uid]
