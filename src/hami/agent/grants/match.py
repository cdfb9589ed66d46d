"""Which pod is kubelet allocating for? It does not say; this finds out. Pure.

kubelet admits one pod after the other and knows a pod from the moment it starts to admit
it. So of the pods that the scheduler bound here and kubelet knows, the one whose next
container kubelet has not been answered for is the one (docs/adr/0003-allocate-matching.md).
Where kubelet's list is not to be had, bind order decides, and verification catches a wrong guess.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from hami.agent.bound import BoundPod, Share, asking
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.kubelet.sight import Sight
from hami.model.ask import ContainerKind
from hami.model.ids import PodUid


class Match(Struct, frozen=True):
    """The container that is being allocated for."""

    pod: BoundPod
    share: Share


class Refused(Struct, frozen=True):
    """Why there is no grant. `pod` is set where one is to blame."""

    reason: str
    message: str
    pod: BoundPod | None = None


def find(pods: Sequence[BoundPod], seats: Sequence[Seat], cards: int, sight: Sight) -> Match | None:
    """The first pod, of those in bind order, that waits for a container with `cards` cards.

    A container that is said to run comes last: kubelet has lost its checkpoint, and asks for it when it starts anew.
    """
    of_pod = by_pod(seats)
    running: Match | None = None
    for pod in asking(pods):
        if sight.knows(pod):
            share = next_share(pod, of_pod.get(pod.ref.uid, ()), sight)
            if share is not None and len(share.slices) == cards:
                if not pod.runs(share.name):
                    return Match(pod, share)
                running = running or Match(pod, share)
    return running


def by_pod(seats: Iterable[Seat]) -> dict[PodUid, list[Seat]]:
    """Seats by the pod that sits there: a node may have hundreds of both."""
    found: dict[PodUid, list[Seat]] = {}
    for seat in seats:
        found.setdefault(seat.grant.pod.uid, []).append(seat)
    return found


def next_share(pod: BoundPod, seats: Iterable[Seat], sight: Sight) -> Share | None:
    """The container of `pod` that kubelet comes to next: the first with cards that it has no answer for."""
    shown = sight.view.of((pod.ref.namespace, pod.ref.name)) if sight.view is not None else {}
    waiting = [share for share in pod.shares if share.slices and share.name not in shown]
    if not waiting:
        return None  # of hundreds of pods nearly all, and kubelet waits: no more is asked about them
    answered = {kept.container for kept in sight.keeps.get(pod.ref.uid, ()) if sight.knows(pod)} | {
        seat.grant.container
        for seat in seats
        if seat.grant.pod.uid == pod.ref.uid and seat.state is State.COMPLETED and still_held(seat, pod, sight)
    }
    return next((share for share in waiting if share.name not in answered), None)


def still_held(seat: Seat, pod: BoundPod, sight: Sight) -> bool:
    """Whether kubelet has what we answered. A kubelet that dies before it writes an answer down asks again.

    What cannot be known counts as held: a container that really was forgotten is found when
    kubelet asks for it by its ids.
    """
    name = (pod.ref.namespace, pod.ref.name)
    keepers = sight.keepers.get(seat.ids, ())
    if keepers and all(kept.uid != pod.ref.uid for kept in keepers):
        return False  # we guessed wrong, and kubelet has already noted whose these are
    if sight.view is None or name not in sight.view.held:
        return True
    if sight.view.of(name).get(seat.grant.container) == seat.ids:
        return True
    share = pod.share(seat.grant.container)
    if share is not None and share.kind is ContainerKind.APP:
        return False
    # kubelet never lists init containers (and old ones no sidecars): its own file is the only witness.
    if sight.kept is None:
        return True
    return any(
        kept.container == seat.grant.container and kept.ids == seat.ids for kept in sight.keeps.get(pod.ref.uid, ())
    )


def reused(pods: Sequence[BoundPod], seats: Sequence[Seat], ids: frozenset[str]) -> Match | None:
    """The container that takes over device ids of its own pod's init container.

    kubelet does that without asking for a preference, so nothing else announces it.
    """
    for pod in asking(pods):
        for seat in seats:
            if seat.grant.pod.uid != pod.ref.uid or not ids <= seat.ids:
                continue
            before = pod.share(seat.grant.container)
            share = next_share(pod, seats, Sight())
            if before is not None and before.kind is ContainerKind.INIT and share is not None:
                return Match(pod, share) if len(share.slices) == len(ids) else None
    return None


def explain(pods: Sequence[BoundPod], seats: Sequence[Seat], cards: int, sight: Sight, resource: str) -> Refused:
    """Why nobody matches: the likeliest pod and what is wrong with it."""
    for pod in pods:
        if pod.pod.finished or not sight.knows(pod) or not _names(pod, resource):
            continue
        if pod.problem is not None:
            return Refused("RecordUnusable", f"pod {pod.ref}: its HAMi record cannot be used: {pod.problem}", pod)
        if pod.over:
            why = "was given up (bind-phase failed), its slice is released: delete it"
            return Refused("AllocationGivenUp", f"pod {pod.ref} {why}", pod)
        if not pod.asks:
            scheduler = pod.pod.spec.scheduler_name or "unknown"
            why = f"has no HAMi record: scheduler {scheduler!r} placed it, which does not know who has which card"
            return Refused("NoRecord", f"pod {pod.ref} {why}", pod)
        share = next_share(pod, seats, sight)
        if share is not None:
            why = f"{len(share.slices)} cards in its HAMi record, kubelet asks for {cards}"
            return Refused("CountMismatch", f"pod {pod.ref}, container {share.name}: {why}", pod)
    return Refused("NoPod", f"no pod bound to this node waits for {cards} x {resource}")


def _names(pod: BoundPod, resource: str) -> bool:
    return any(resource in (share.spec.resources.limits or {}) for share in pod.shares)
