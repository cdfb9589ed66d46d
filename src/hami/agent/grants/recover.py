"""After a restart, or with the checkpoint lost: seats from what kubelet and the API server still know.

A broken checkpoint never grants more: a seat is rebuilt only where kubelet's own file shows
the answer it keeps, and where that answer is what the pod's record gives. The rest stays
unknown, and its containers do not start again until their pods are made anew.
"""

import logging

from google.protobuf.message import DecodeError

from hami.agent.bound import BoundPod, Share
from hami.agent.grant import ALLOCATION, build, fixed_part
from hami.agent.grants.allocate import Parts
from hami.agent.grants.answer import fixed_part_of
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.kubelet.podresources import Kept
from hami.model.ids import PodUid
from hami.wire.proto import deviceplugin_pb2 as messages

log = logging.getLogger(__name__)


def seat(kept: Kept, pod: BoundPod, share: Share, parts: Parts) -> Seat | None:
    """The seat of one container; None where kubelet's answer is not what the record gives."""
    ids = tuple(sorted(kept.ids))
    try:
        answer = messages.ContainerAllocateResponse.FromString(kept.answer)
    except DecodeError:
        return None
    key = answer.annotations.get(ALLOCATION, "")
    if parts.seats.get(key) is not None:
        return None  # two containers with one folder: one of them has the other's
    grant = build(pod.ref, share, ids, key=key, cards=parts.cards.cards(), host=parts.host)
    if not share.slices or fixed_part(grant) != fixed_part_of(answer):
        return None
    return Seat(key, grant, State.COMPLETED)


def take_over(parts: Parts) -> None:
    """What an agent before us has granted. What it had only started is undone: kubelet never had an answer."""
    for key in parts.seats.load():
        parts.folders.remove(key)


async def rebuild(parts: Parts) -> int:
    """Seats for all that kubelet keeps and we do not know of; how many were found."""
    known = {(one.grant.pod.uid, one.grant.container, one.ids) for one in parts.seats}
    found = []
    for kept in parts.kept() or ():
        pod = parts.pods.get(PodUid(kept.uid))
        share = pod.share(kept.container) if pod is not None else None
        if pod is None or share is None or (pod.ref.uid, kept.container, kept.ids) in known:
            continue
        made = seat(kept, pod, share, parts)
        if made is None:
            log.warning("what kubelet keeps for a container is not its record", extra={"pod": str(pod.ref)})
        else:
            found.append(made)
    await parts.seats.change(put=found)
    return len(found)


async def forget(parts: Parts) -> list[str]:
    """Drop the seats of pods that are gone or finished, and their folders. Call only when all pods are known."""
    gone = [one.key for one in parts.seats if (pod := parts.pods.get(one.grant.pod.uid)) is None or pod.pod.finished]
    await parts.seats.change(drop=gone)
    for key in gone:
        parts.folders.remove(key)
    return gone


def sweep(parts: Parts) -> None:
    """Remove folders that no seat has; only after `rebuild`, or running containers lose their policy at a restart."""
    for key in parts.folders.keys() - {one.key for one in parts.seats}:
        parts.folders.remove(key)
