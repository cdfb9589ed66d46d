"""PreStartContainer: before a container starts, kubelet says who it is; does it sit on its own grant?

    ids -> places (kubelet) -> seats -> right | exchange | stop -> policy

An exchange gives a seat the right container's record where all that kubelet was already told
is the same for both. Where it is not, the container does not start, and its pod is failed
with the reason, so that its controller makes a new one (docs/adr/0003-allocate-matching.md).
"""

import asyncio
import logging
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from hami.agent import library
from hami.agent.bound import BoundPod, Share
from hami.agent.grant import build, fixed_part
from hami.agent.grants import recover
from hami.agent.grants.allocate import Parts
from hami.agent.grants.answer import allocation_of
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.grants.policy import ledger_of, needs_policy, policy_of
from hami.agent.kubelet.podresources import Kept
from hami.agent.kubelet.sight import Sight, look
from hami.model.ask import ContainerKind
from hami.model.errors import HamiError, Malformed, Unavailable
from hami.model.ids import PodUid
from hami.wire.policy import LibraryPolicy

log = logging.getLogger(__name__)


class NotVerified(HamiError):
    """The container must not start. kubelet shows this text on the pod and tries again later."""


class Place(Struct, frozen=True):
    """A container that has the ids, as kubelet says, and which allocation it was answered with."""

    pod: BoundPod
    share: Share
    key: str | None
    """None where only the public API was there to ask."""
    kept: Kept | None = None

    def is_of(self, seat: Seat) -> bool:
        return (seat.grant.pod.uid, seat.grant.container) == (self.pod.ref.uid, self.share.name)


class Verifier:
    """Answers PreStartContainer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._turn = asyncio.Lock()
        self.exchanged = 0
        self.stopped = 0

    async def verify(self, ids: tuple[str, ...]) -> None:
        """Returns when what lies on the host is for the container that is about to start.

        Raises `NotVerified`, also where kubelet or the disk keep us from being sure.
        """
        wanted = frozenset(ids)
        places = await self._places(wanted)
        self._refuse_shared(places)
        async with self._turn:
            try:
                seats = [await self._seat(place, wanted) for place in places]
                policies = [self._policy(place, seat) for place, seat in zip(places, seats, strict=True)]
                await self._leave(wanted, seats, policies)
            except (OSError, Malformed) as fault:
                if isinstance(fault, OSError):
                    self._parts.unwritten()
                raise NotVerified(f"cannot be written down: {fault}") from fault
            except Unavailable as fault:
                raise NotVerified(str(fault)) from fault

    # 1. who has the ids

    async def _places(self, ids: frozenset[str]) -> list[Place]:
        parts = self._parts
        try:
            sight = await look(parts.kubelet, parts.kept, parts.host.settings.verify_wait, ids)
        except Unavailable as fault:
            raise NotVerified(f"nobody says whose devices these are: {fault}") from fault
        found = self._found(ids, sight)
        if not found:
            # kubelet may know of a pod that the watch has not told of, after a restart of ours.
            try:
                parts.pods.replace(*await parts.fetch())
            except HamiError as fault:
                raise NotVerified(f"the pod that holds {_few(ids)} cannot be read: {fault}") from fault
            found = self._found(ids, sight)
        if not found:
            raise NotVerified(f"kubelet does not say which pod holds {_few(ids)}")
        return found

    def _found(self, ids: frozenset[str], sight: Sight) -> list[Place]:
        return self._by_file(ids, sight) if sight.kept is not None else self._by_api(ids, sight)

    def _by_file(self, ids: frozenset[str], sight: Sight) -> list[Place]:
        """From kubelet's file, which has uids, init containers and our answers. It was compared with the API."""
        places = []
        for kept in sight.kept or ():
            pod = self._parts.pods.get(PodUid(kept.uid))
            share = pod.share(kept.container) if pod is not None else None
            if kept.ids == ids and pod is not None and share is not None and sight.knows(pod):
                places.append(Place(pod, share, allocation_of(kept.answer), kept))
        return places

    def _by_api(self, ids: frozenset[str], sight: Sight) -> list[Place]:
        """From the public API alone, which shows no init containers: their pods cannot be told apart."""
        places = []
        for (namespace, name), container in sight.view.owners(ids) if sight.view is not None else ():
            pods = self._parts.pods.named(namespace, name)
            if len(pods) != 1 or any(share.kind is ContainerKind.INIT and share.slices for share in pods[0].shares):
                text = f"pod {namespace}/{name}: kubelet's checkpoint cannot be read, and only that tells who it is"
                raise NotVerified(text)
            share = pods[0].share(container)
            if share is not None:
                places.append(Place(pods[0], share, None))
        return places

    def _refuse_shared(self, places: Sequence[Place]) -> None:
        """One answer for two containers means one folder for both: neither may start on the other's."""
        keys = [place.key for place in places if place.key is not None]
        for place in places:
            if keys.count(place.key or "") > 1:
                why = f"pod {place.pod.ref}: two containers were given one allocation; the pod is failed"
                self.stopped += 1
                self._parts.outcome.failed(place.pod, "AllocationMismatch", why)
                raise NotVerified(why)

    # 2. put each on what is its own

    async def _seat(self, place: Place, ids: frozenset[str]) -> Seat:
        """The seat that `place` was answered with, with `place` on it."""
        seats = [seat for seat in self._parts.seats.holding(ids) if seat.state is State.COMPLETED]
        if place.key is not None:
            seats = [seat for seat in seats if seat.key == place.key]
        if not seats:
            return await self._recovered(place)
        if len(seats) > 1:  # only kubelet's file could tell which of the answers it keeps
            raise NotVerified(f"pod {place.pod.ref}: {_few(ids)} were given out more than once: delete the pod")
        return seats[0] if place.is_of(seats[0]) else await self._exchanged(seats[0], place)

    async def _exchanged(self, seat: Seat, place: Place) -> Seat:
        """Give `seat` to `place`, and the seat that `place` had, if any, to the one who sat here."""
        parts = self._parts
        former = parts.pods.get(seat.grant.pod.uid), seat.grant.container
        other = next((one for one in parts.seats.of_pod(place.pod.ref.uid) if place.is_of(one)), None)
        # The record as it was when it was judged: the pod's annotations may have been tampered with since.
        share = place.share if other is None else replace(place.share, slices=other.grant.slices)
        moved = self._moved(seat, place.pod, share)
        if moved is None:
            raise await self._stopped(seat, place)
        back = self._given_back(other, *former) if other is not None else None
        lost = [other.key] if other is not None and back is None else []
        await parts.seats.change(put=[moved, back] if back is not None else [moved], drop=lost)
        self.exchanged += 1
        log.warning(
            "seats exchanged",
            extra={"allocation": seat.key, "now": str(place.pod.ref), "before": str(seat.grant.pod)},
        )
        return moved

    def _moved(self, seat: Seat, pod: BoundPod, share: Share) -> Seat | None:
        """`seat` with another container on it; None where what kubelet was told does not fit that one."""
        if pod.over or pod.problem is not None or not share.slices or seat.broken:
            return None
        cards, host = self._parts.cards.cards(), self._parts.host
        grant = build(pod.ref, share, seat.grant.kubelet_ids, key=seat.key, cards=cards, host=host)
        return replace(seat, grant=grant, verified=False) if fixed_part(grant) == fixed_part(seat.grant) else None

    def _given_back(self, seat: Seat, pod: BoundPod | None, container: str) -> Seat | None:
        share = pod.share(container) if pod is not None else None
        return self._moved(seat, pod, share) if pod is not None and share is not None else None

    async def _stopped(self, seat: Seat, place: Place) -> NotVerified:
        """kubelet holds an answer that fits somebody else and cannot be taken back: this pod must not start."""
        why = (
            f"container {place.share.name} was given the slice of {seat.grant.pod}, container {seat.grant.container}, "
            "and the two cannot be exchanged; the pod is failed before it starts, its controller makes a new one"
        )
        grant = replace(seat.grant, pod=place.pod.ref, container=place.share.name)
        await self._parts.seats.change(put=[replace(seat, grant=grant, broken=why)])
        self.stopped += 1
        self._parts.outcome.failed(place.pod, "AllocationMismatch", why)
        return NotVerified(why)

    async def _recovered(self, place: Place) -> Seat:
        """The seat was lost with the checkpoint: what kubelet keeps of our answer says where it was."""
        seat = recover.seat(place.kept, place.pod, place.share, self._parts) if place.kept is not None else None
        if seat is None:
            raise NotVerified(
                f"pod {place.pod.ref}, container {place.share.name}: what it was given is lost: delete the pod"
            )
        await self._parts.seats.change(put=[seat])
        return seat

    # 3. write what the container will see

    def _policy(self, place: Place, seat: Seat) -> LibraryPolicy | None:
        parts = self._parts
        if seat.broken:
            parts.outcome.failed(place.pod, "AllocationMismatch", seat.broken)
            raise NotVerified(seat.broken)
        if place.pod.over:
            raise NotVerified(f"pod {place.pod.ref} was given up and its slice released: delete it")
        if not needs_policy(seat.grant):
            return None
        return policy_of(seat.grant, place.share, parts.cards.cards(), parts.host)

    async def _leave(
        self, ids: frozenset[str], seats: Sequence[Seat], policies: Sequence[LibraryPolicy | None]
    ) -> None:
        """Write the folders and note who was confirmed.

        Other seats of these ids belong to nobody: kubelet has forgotten them. But where it has lost its checkpoint,
        their containers run on, and are ours to hold to their slices.
        """

        def write() -> None:
            if any(self._parts.seats.get(seat.key) != seat for seat in seats):  # resized since it was read
                raise Unavailable("its grant has changed at this moment; kubelet tries again")
            for seat, policy in zip(seats, policies, strict=True):
                if policy is not None:
                    library.ensure(seat.grant, self._parts.host.settings)
                    self._parts.folders.write(seat.key, policy, ledger_of(seat.grant))

        keys = {seat.key for seat in seats}
        stale = [seat.key for seat in self._parts.seats.holding(ids) if seat.key not in keys and not self._runs(seat)]
        verified = [replace(seat, verified=True) for seat in seats]
        await self._parts.seats.change(put=verified, drop=stale, first=write)

    def _runs(self, seat: Seat) -> bool:
        """Whether a container runs on it, though kubelet may not know."""
        pod = self._parts.pods.get(seat.grant.pod.uid)
        return seat.verified and pod is not None and not pod.over and pod.runs(seat.grant.container)


def _few(ids: frozenset[str]) -> str:
    shown = sorted(ids)
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
