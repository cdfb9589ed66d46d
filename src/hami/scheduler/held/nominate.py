"""Room that is being made for a pod: nobody less important may take it meanwhile.

A nomination says: these pods leave this node, and then that pod goes there. It is no reservation, since the
room is not there yet; it only refuses plans after which the pod would not fit any more. It ends when
the pod is placed or gone, or when it takes too long. A note on the pod itself says the same to a scheduler that
has just started, and to a replica that takes over.
"""

import logging
import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.model.ask import Ask, PodRef
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.model.refusal import Reason, Refusal
from hami.plan.exact.fit import fits
from hami.plan.snapshot import NodeState
from hami.scheduler.held.waiting import Waiting

log = logging.getLogger(__name__)

LASTS = 120.0
"""Seconds. Victims get their grace period; who takes longer to leave is waited for no more."""


class Nomination(Struct, frozen=True):
    ask: Ask
    node: NodeName
    victims: frozenset[PodUid]
    since: float
    recalled: bool = False
    """Read from the pod's note; the pod itself has not been asked about since."""


class Note(Struct, frozen=True):
    """The note on the pod."""

    node: NodeName
    victims: tuple[PodUid, ...]
    since: float
    """Unix seconds."""


def note(nomination: Nomination, now: float) -> str:
    """What the pod is to carry from `now` (unix seconds) on."""
    told = Note(nomination.node, tuple(sorted(nomination.victims)), now)
    return msgspec.json.encode(told).decode()


class Nominations:
    """By the uid of the pod they are for."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float], now: Callable[[], float] = time.time) -> None:
        """`clock` counts seconds as `Nomination.since` does, `now` is unix seconds."""
        self._ledger = ledger
        self._clock = clock
        self.now = now
        self._of: dict[PodUid, Nomination] = {}

    def add(self, nomination: Nomination) -> None:
        self._of[nomination.ask.pod.uid] = nomination

    def recall(self, ask: Ask, text: str) -> None:
        """Take up what another process noted on the pod, or this one before a restart. A note that cannot be read,
        or is from another time, says nothing."""
        try:
            told = msgspec.json.decode(text, type=Note)
        except msgspec.DecodeError:
            log.warning("pod %s: its note of a nomination cannot be read: %r", ask.pod, text)
            return
        age = self.now() - told.since
        if 0 <= age < LASTS:
            self.add(Nomination(ask, told.node, frozenset(told.victims), self._clock() - age, recalled=True))

    def drop(self, uid: PodUid) -> None:
        self._of.pop(uid, None)

    def of(self, uid: PodUid) -> Nomination | None:
        return self._of.get(uid)

    def __iter__(self) -> Iterator[Nomination]:
        return iter(self._of.values())

    def forget(self, now: float, waiting: Waiting) -> None:
        """End those whose pod waits no more, and those that took too long."""
        waits = {uid for uid in self._of if waiting.get(uid) is not None}
        self._of = {
            uid: replace(one, recalled=False) if uid in waits and one.recalled else one
            for uid, one in self._of.items()
            if (uid in waits or one.recalled) and now - one.since < LASTS
        }

    def against(self, ask: Ask) -> dict[NodeName, PodRef]:
        """Nodes on which room is being made for others that are no less important, and for whom."""
        others = (one for one in self._of.values() if one.ask.pod.uid != ask.pod.uid)
        return {one.node: one.ask.pod for one in others if one.ask.priority >= ask.priority}

    def stands_against(self, ask: Ask, plan: Plan) -> PodRef | None:
        """The pod, more important or as important and first, that `plan` would take the room of; None if none."""
        for one in self._of.values():
            if one.node != plan.node or one.ask.pod.uid == ask.pod.uid or one.ask.priority < ask.priority:
                continue
            state = self._then(one, ask.pod.uid)
            if state is not None and fits(one.ask, state) and not fits(one.ask, state.bearing(plan.charges)):
                return one.ask.pod
        return None

    def _then(self, nomination: Nomination, without: PodUid) -> NodeState | None:
        """The node once the victims have left, as if pod `without` held nothing."""
        state = self._ledger.node(nomination.node)
        if state is None:
            return None
        for pod in self._ledger.pods_on(nomination.node):
            if pod.ref.uid in nomination.victims:
                state = state.without(pod.charges)
        hold = self._ledger.reservation(without)
        if hold is not None and hold.plan.node == nomination.node:
            state = state.without(hold.plan.charges)
        return state


def refusal(pod: PodRef) -> Refusal:
    return Refusal(((Reason.NOMINATED, 1),), 0, f"room is being made there for {pod}")


def made_on(node: NodeName) -> Refusal:
    """Of every other node, once there is room for the pod where it was made."""
    return Refusal(((Reason.NOMINATED, 1),), 0, f"room was made for it on {node}")
