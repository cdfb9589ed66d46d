"""PreStartContainer: before a container starts, kubelet says who it is; does it sit on its own grant?

    ids -> holders (kubelet) -> seats -> right | exchange | stop -> policy

An exchange gives the seat the right pod's record where all that kubelet was already told is
the same for both. Where it is not, the container does not start, and its pod is failed with
the reason, so that its controller makes a new one.
"""

import asyncio
import logging

from msgspec import Struct
from msgspec.structs import replace

from hami.agent import recover
from hami.agent.allocate import Parts
from hami.agent.bound import BoundPod, Share
from hami.agent.checkpoint import Seat, State
from hami.agent.grant import build, fixed_part
from hami.agent.podresources import KubeletView
from hami.agent.policy import needs_policy, policy_of
from hami.model.ask import ContainerKind
from hami.model.errors import HamiError, Malformed, Unavailable
from hami.model.ids import PodUid

log = logging.getLogger(__name__)


class NotVerified(HamiError):
    """The container must not start. kubelet shows this text on the pod and tries again later."""


class Holders(Struct, frozen=True):
    """Who has some device ids, as kubelet has it."""

    pods: dict[PodUid, BoundPod]
    """Pods with any of them."""
    exact: dict[tuple[PodUid, str], Share]
    """Containers with just these; init containers only where kubelet's file tells of them."""


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
        holders = await self._holders(wanted)
        async with self._turn:
            try:
                await self._seat_holders(wanted, holders)
                await self._confirm(wanted, holders)
            except (OSError, Malformed) as fault:
                raise NotVerified(f"cannot be written down: {fault}") from fault

    # 1. who holds the ids

    async def _holders(self, ids: frozenset[str]) -> Holders:
        parts = self._parts
        try:
            view = await parts.kubelet.view(parts.host.settings.verify_wait)
        except Unavailable as fault:
            raise NotVerified(f"nobody says whose devices these are: {fault}") from fault
        found = self._known(ids, view)
        if not found.pods:
            # kubelet may know of a pod that the watch has not told of, after a restart of ours.
            try:
                parts.pods.replace(*await parts.fetch())
            except HamiError as fault:
                raise NotVerified(f"the pod that holds {_few(ids)} cannot be read: {fault}") from fault
            found = self._known(ids, view)
        if not found.pods:
            raise NotVerified(f"kubelet does not say which pod holds {_few(ids)}")
        return found

    def _known(self, ids: frozenset[str], view: KubeletView) -> Holders:
        pods: dict[PodUid, BoundPod] = {}
        exact: dict[tuple[PodUid, str], Share] = {}
        kept = {(one.uid, one.container): one.ids for one in self._parts.kept() or ()}

        def add(pod: BoundPod, container: str, held: frozenset[str]) -> None:
            pods[pod.ref.uid] = pod
            share = pod.share(container)
            if held == ids and share is not None:
                exact[pod.ref.uid, container] = share

        for name, container in view.owners(ids):
            namesakes = self._parts.pods.named(*name)
            for pod in namesakes:
                # Two of one name: the one that was forcibly deleted, and its successor. kubelet's file knows uids.
                if len(namesakes) == 1 or (pod.ref.uid, container) in kept:
                    add(pod, container, view.of(name)[container])
        for (uid, container), held in kept.items():
            own = self._parts.pods.get(PodUid(uid))
            if own is not None and held & ids and (own.ref.namespace, own.ref.name) in view.pods:
                add(own, container, held)
        return Holders(pods, exact)

    # 2. seat each holder on what is its own

    async def _seat_holders(self, ids: frozenset[str], holders: Holders) -> None:
        for (uid, container), share in holders.exact.items():
            seats = self._completed(ids)
            if not share.slices or any(_is_of(seat, uid, container) for seat in seats):
                continue
            wrong = [seat for seat in seats if self._wrong(seat, holders)]
            if wrong:
                await self._exchange(wrong[0], holders.pods[uid], share)
            else:
                await self._recover(ids, holders.pods[uid], share)
        # What is left over belongs to nobody: kubelet has forgotten it, or its pod is gone.
        stale = [seat.key for seat in self._completed(ids) if self._wrong(seat, holders)]
        await self._parts.seats.change(drop=stale)

    def _completed(self, ids: frozenset[str]) -> list[Seat]:
        return [seat for seat in self._parts.seats.holding(ids) if seat.state is State.COMPLETED]

    def _wrong(self, seat: Seat, holders: Holders) -> bool:
        pod = holders.pods.get(seat.grant.pod.uid)
        if pod is None:
            return True
        share = pod.share(seat.grant.container)
        visible = share is not None and share.kind is ContainerKind.APP
        return visible and (seat.grant.pod.uid, seat.grant.container) not in holders.exact

    async def _exchange(self, seat: Seat, pod: BoundPod, share: Share) -> None:
        """Give `seat` to `pod`, and `pod`'s own seat, if it had one, to the one who sat here."""
        parts = self._parts
        former = seat.grant.pod, seat.grant.container
        other = next((one for one in parts.seats.of_pod(pod.ref.uid) if one.grant.container == share.name), None)
        if other is not None:
            # The record as it was when it was judged: the pod's annotations may have been tampered with since.
            share = replace(share, slices=other.grant.slices)
        moved = self._moved(seat, pod, share)
        if moved is None:
            raise await self._stopped(seat, pod, share)
        back = self._given_back(other, *former) if other is not None else None
        lost = [other.key] if other is not None and back is None else []
        await parts.seats.change(put=[moved, back] if back is not None else [moved], drop=lost)
        self.exchanged += 1
        log.warning("seats exchanged", extra={"allocation": seat.key, "now": str(pod.ref), "before": str(former[0])})

    def _moved(self, seat: Seat, pod: BoundPod, share: Share) -> Seat | None:
        """`seat` with another pod on it; None where what kubelet was told does not fit that pod."""
        cards, host = self._parts.cards.cards(), self._parts.host
        if pod.over or pod.problem is not None:
            return None
        grant = build(pod.ref, share, seat.grant.kubelet_ids, key=seat.key, cards=cards, host=host)
        return replace(seat, grant=grant, verified=False) if fixed_part(grant) == fixed_part(seat.grant) else None

    def _given_back(self, seat: Seat, ref: object, container: str) -> Seat | None:
        pod = next((one for one in self._parts.pods.in_order() if one.ref == ref), None)
        share = pod.share(container) if pod is not None else None
        return self._moved(seat, pod, share) if pod is not None and share is not None else None

    async def _stopped(self, seat: Seat, pod: BoundPod, share: Share) -> NotVerified:
        """kubelet holds an answer that fits somebody else and cannot be taken back: this pod must not start."""
        why = (
            f"container {share.name} was given the slice of {seat.grant.pod}, container {seat.grant.container}, "
            "and the two cannot be exchanged; the pod is failed before it starts, its controller makes a new one"
        )
        grant = replace(seat.grant, pod=pod.ref, container=share.name)
        await self._parts.seats.change(put=[replace(seat, grant=grant, broken=why)])
        self.stopped += 1
        self._parts.outcome.failed(pod, "AllocationMismatch", why)
        return NotVerified(why)

    async def _recover(self, ids: frozenset[str], pod: BoundPod, share: Share) -> None:
        """The seat was lost with the checkpoint: what kubelet keeps of our answer says where it was."""
        lost = (pod.ref.uid, share.name, ids)
        all_kept = self._parts.kept() or ()
        kept = next((one for one in all_kept if (one.uid, one.container, one.ids) == lost), None)
        seat = recover.seat(kept, pod, share, self._parts) if kept is not None else None
        if seat is None:
            raise NotVerified(f"pod {pod.ref}, container {share.name}: what it was given is lost: delete the pod")
        await self._parts.seats.change(put=[seat])

    # 3. write what the container will see

    async def _confirm(self, ids: frozenset[str], holders: Holders) -> None:
        seats = [seat for seat in self._completed(ids) if seat.grant.pod.uid in holders.pods]
        if not seats:
            raise NotVerified(f"nothing was granted for {_few(ids)}")
        for seat in seats:
            await self._ready(seat, holders.pods[seat.grant.pod.uid])
        await self._parts.seats.change(put=[replace(seat, verified=True) for seat in seats])

    async def _ready(self, seat: Seat, pod: BoundPod) -> None:
        parts = self._parts
        if seat.broken:
            parts.outcome.failed(pod, "AllocationMismatch", seat.broken)
            raise NotVerified(seat.broken)
        if pod.over:
            raise NotVerified(f"pod {pod.ref} was given up and its slice released: delete it")
        share = pod.share(seat.grant.container)
        if share is None:
            raise NotVerified(f"pod {pod.ref} has no container {seat.grant.container}")
        if needs_policy(seat.grant):
            policy = policy_of(seat.grant, share, parts.cards.cards(), parts.host.config)
            await asyncio.to_thread(parts.folders.write, seat.key, policy)


def _is_of(seat: Seat, uid: PodUid, container: str) -> bool:
    return (seat.grant.pod.uid, seat.grant.container) == (uid, container)


def _few(ids: frozenset[str]) -> str:
    shown = sorted(ids)
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
