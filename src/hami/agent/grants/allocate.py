"""Allocate: from a number of kubelet's device ids to a grant.

    see (kubelet's pods) -> find (whose turn is it) -> object (may it) -> prepare -> complete -> answer

One at a time, as kubelet calls it. The answer is in the checkpoint before kubelet hears it; a
wrong guess is caught by `verify` before the container starts.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from hami.agent.bound import AgentPod, BoundPod, BoundPods, asking
from hami.agent.grant import Host, build, key_of
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.grants.match import Match, Refused, explain, find, next_share, reused, still_held
from hami.agent.grants.objection import Rules, objection
from hami.agent.grants.policy import Folders, ledger_of, needs_policy, policy_of
from hami.agent.grants.seats import Seats
from hami.agent.kubelet.sight import Kubelet, ReadKept, Sight, look
from hami.model.card import Card
from hami.model.errors import HamiError, Malformed, Unavailable
from hami.model.grant import Grant
from hami.model.vendor import Vendor
from hami.wire import annotations as keys

log = logging.getLogger(__name__)

VIEW_SHARE = 0.4
"""Part of an Allocate's time that may go into asking kubelet; the rest is for the API server."""


class Cards(Protocol):
    """The node's cards as they are now (`inventory.Inventory`)."""

    def cards(self) -> tuple[Card, ...]: ...
    @property
    def scanned(self) -> bool:
        """Whether there has been a look at them: before that, no cards means that nothing is known."""


class Outcome(Protocol):
    """Who tells the cluster how it went (`publish.Publisher`). Returns at once."""

    def granted(self, pod: BoundPod) -> None:
        """All its containers have been answered."""

    def refused(self, pod: BoundPod, reason: str, message: str) -> None:
        """kubelet is about to fail the pod."""

    def failed(self, pod: BoundPod, reason: str, message: str) -> None:
        """The pod must not start, and kubelet cannot know: fail it ourselves."""

    def told(self, pod: BoundPod, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Something that people should know, and that changes nothing about how the pod went."""


class AllocationFailed(HamiError):
    """No grant; kubelet rejects the pod with this text."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused
        super().__init__(refused.message)


class Parts(Struct, frozen=True):
    """All that an allocation touches."""

    pods: BoundPods
    seats: Seats
    kubelet: Kubelet
    kept: ReadKept
    fetch: Callable[[], Awaitable[tuple[Sequence[AgentPod], str]]]
    """A fresh list of this node's pods, never from a cache, with its version."""
    cards: Cards
    host: Host
    vendor: Callable[[], Vendor]
    """How asks are read under the configuration of now."""
    rules: Rules
    folders: Folders
    outcome: Outcome
    resource: str
    unwritten: Callable[[], None] = lambda: None
    """Told of each write that failed: whether the next one can be made is to be seen (`storage`)."""

    def granted(self) -> list[BoundPod]:
        """The pods that have cards of this node: by a seat or, where the seats were lost, by our word of then."""
        seated = {seat.grant.pod.uid for seat in self.seats}
        pods = asking(self.pods.in_order())
        return [pod for pod in pods if pod.ref.uid in seated or pod.phase == keys.PHASE_SUCCESS]


class _Expected(Struct, frozen=True):
    """What a preference was asked for; the next Allocate of these ids is for the same container."""

    available: frozenset[str]
    cards: int
    sight: Sight


class Allocator:
    """Answers GetPreferredAllocation and Allocate."""

    def __init__(self, parts: Parts, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._clock = clock
        self._turn = asyncio.Lock()
        self._expected: _Expected | None = None

    async def prefer(self, available: frozenset[str], must: frozenset[str], cards: int) -> tuple[str, ...]:
        """Ids on the cards that the record names, none that another container has. Empty: no preference.

        kubelet asks this right before Allocate. Its pods are looked at here, and not only in
        Allocate, because a pod-resources call while kubelet waits for an Allocate can make it
        forget the ids it is about to hand out (docs/adr/0003-allocate-matching.md).
        """
        async with self._turn:
            sight = await self._look()
            self._expected = _Expected(available, cards, sight)
            found = await self._find(cards, sight)
            if isinstance(found, Refused):
                return ()
            return choose_ids(found, available, must, self._taken(found, sight))

    async def allocate(self, ids: tuple[str, ...]) -> Grant:
        """The grant for one container. Raises `AllocationFailed`; kubelet then rejects the pod."""
        async with self._turn:
            expected, self._expected = self._expected, None
            found = await self._whose(ids, expected)
            if not isinstance(found, Refused):
                found = await self._judged(found, len(ids), expected.sight if expected else Sight())
            if isinstance(found, Refused):
                raise self._failed(found)
            try:
                return await self._seat(found, ids)
            except (OSError, Malformed) as fault:
                if isinstance(fault, OSError):
                    self._parts.unwritten()
                text = f"pod {found.pod.ref}, container {found.share.name}: cannot be prepared: {fault}"
                raise self._failed(Refused("PrepareFailed", text, found.pod)) from fault

    # 1. see

    async def _look(self) -> Sight:
        parts = self._parts
        try:
            return await look(parts.kubelet, parts.kept, parts.host.settings.allocate_wait * VIEW_SHARE)
        except Unavailable as fault:
            log.warning("allocating in bind order: kubelet's pods are not to be had", extra={"fault": str(fault)})
            return Sight()

    # 2. find

    async def _whose(self, ids: tuple[str, ...], expected: _Expected | None) -> Match | Refused:
        if expected is not None and expected.cards == len(ids) and expected.available.issuperset(ids):
            return await self._find(len(ids), expected.sight)
        # No preference was asked for: ids of the pod's own init container, or NUMA alignment left no choice.
        known = reused(self._parts.pods.in_order(), tuple(self._parts.seats), frozenset(ids))
        return known or await self._find(len(ids), await self._look())

    async def _find(self, cards: int, sight: Sight) -> Match | Refused:
        """Whose turn it is, from what the watch has told, else from a fresh list."""
        pods, seats = self._parts.pods, tuple(self._parts.seats)
        if not self._stranger(sight):
            match = find(pods.in_order(), seats, cards, sight)
            if match is not None:
                return match
        problem = await self._refresh()
        match = find(pods.in_order(), seats, cards, sight)
        if match is not None:
            return match
        if problem:
            return Refused("ApiUnavailable", f"nobody is known to wait for {cards} cards, and {problem}")
        return explain(pods.in_order(), seats, cards, sight, self._parts.resource)

    def _stranger(self, sight: Sight) -> bool:
        """Whether kubelet knows a pod that the watch has not shown: the one it admits now may be that one."""
        return sight.view is not None and not self._parts.pods.names().issuperset(sight.view.held)

    async def _refresh(self) -> str:
        """A fresh list, tried until it is there or time is up; why not, in words."""
        deadline = self._clock() + self._parts.host.settings.allocate_wait * (1 - VIEW_SHARE)
        while True:
            try:
                async with asyncio.timeout(max(0.1, deadline - self._clock())):
                    self._parts.pods.replace(*await self._parts.fetch())
            except (HamiError, TimeoutError) as fault:
                if self._clock() + 0.2 >= deadline:
                    return f"the API server does not answer: {fault or 'no answer in time'}"
                await asyncio.sleep(0.2)
            else:
                return ""

    # 3. object

    async def _judged(self, found: Match, cards: int, sight: Sight) -> Match | Refused:
        text = self._objection(found)
        if text is None:
            return found
        # What speaks against it may be over: a pod that left a moment ago. Look once more.
        await self._refresh()
        again = find(self._parts.pods.in_order(), tuple(self._parts.seats), cards, sight)
        if again is not None and (text := self._objection(again)) is None:
            return again
        blamed = again or found
        return Refused("RecordRefused", f"pod {blamed.pod.ref}, container {blamed.share.name}: {text}", blamed.pod)

    def _objection(self, found: Match) -> str | None:
        parts = self._parts
        return objection(
            found.pod,
            found.share,
            parts.cards.cards(),
            granted=parts.granted(),
            vendor=parts.vendor(),
            rules=parts.rules,
        )

    # 4. prepare, complete

    async def _seat(self, found: Match, ids: tuple[str, ...]) -> Grant:
        parts = self._parts
        ids = tuple(sorted(ids))
        key = key_of(found.pod.ref, found.share.name, ids)
        cards = parts.cards.cards()
        grant = build(found.pod.ref, found.share, ids, key=key, cards=cards, host=parts.host)
        policy = policy_of(grant, found.share, cards, parts.host) if needs_policy(grant) else None

        def prepare() -> None:
            if policy is not None:
                parts.folders.write(key, policy, ledger_of(grant))

        known = parts.seats.get(key)
        try:
            if known is not None and known.grant == grant and known.state is State.COMPLETED:
                await parts.seats.change(first=prepare)
            else:
                # An earlier seat of the same container, whose answer kubelet has lost, stays until its pod goes: were
                # the guess then wrong, its ids could be somebody else's now, and nothing would tell.
                await parts.seats.enter(Seat(key, grant, State.STARTED), prepare)
        except (OSError, Malformed):
            await self._undo(key)
            raise
        log.info("granted", extra={"pod": str(found.pod.ref), "container": found.share.name, "allocation": key})
        if next_share(found.pod, parts.seats.of_pod(found.pod.ref.uid), Sight()) is None:
            parts.outcome.granted(found.pod)
        return grant

    async def _undo(self, key: str) -> None:
        self._parts.folders.remove(key)
        try:
            await self._parts.seats.change(drop=[key])
        except OSError as fault:  # still no room: the started seat is undone at the next start
            log.warning("a started allocation stays in the checkpoint", extra={"allocation": key, "fault": str(fault)})

    def _taken(self, found: Match, sight: Sight) -> frozenset[str]:
        """Ids that some other container has or may have."""
        pods = self._parts.pods
        return frozenset(
            one
            for seat in self._parts.seats
            if seat.grant.pod.uid != found.pod.ref.uid
            and ((pod := pods.get(seat.grant.pod.uid)) is None or still_held(seat, pod, sight))
            for one in seat.ids
        )

    def _failed(self, refused: Refused) -> AllocationFailed:
        log.error("no grant", extra={"reason": refused.reason, "why": refused.message})
        if refused.pod is not None:
            self._parts.outcome.refused(refused.pod, refused.reason, refused.message)
        return AllocationFailed(refused)


def card_of(device_id: str) -> str:
    """The card of one of our device ids, ``<card>-<slot>``."""
    return device_id.rpartition("-")[0]


def choose_ids(found: Match, available: frozenset[str], must: frozenset[str], taken: frozenset[str]) -> tuple[str, ...]:
    """One id a slice: what must be in, then free slots of the record's cards, then any free slot."""
    chosen = sorted(must)
    free = sorted(available - must - taken, key=_slot)
    wanted = [one.card for one in found.share.slices]
    for one in chosen:
        if card_of(one) in wanted:
            wanted.remove(card_of(one))  # type: ignore[arg-type]
    for card in wanted:
        fitting = next((one for one in free if card_of(one) == card), None)
        if fitting is not None:
            chosen.append(fitting)
            free.remove(fitting)
    short = len(found.share.slices) - len(chosen)
    return tuple(chosen + free[: max(0, short)])


def _slot(device_id: str) -> tuple[str, int]:
    card, _, slot = device_id.rpartition("-")
    return card, int(slot) if slot.isdigit() else 0
