"""A running container's record has other numbers than what it was given: it gets them without a restart.

Only numbers: the cards were mounted when it started. The record is the scheduler's word, which admission keeps from
others; here it is judged by what the card has. The policy file is written anew, and the broker tells the library.
"""

import asyncio
import logging

from msgspec.structs import replace

from hami.agent.bound import BoundPod, Share, asking
from hami.agent.grant import ordered
from hami.agent.grants.allocate import Parts
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.grants.objection import overpromise
from hami.agent.grants.policy import has_broker, needs_policy, policy_of
from hami.model.errors import Malformed
from hami.model.plan import ContainerSlices

log = logging.getLogger(__name__)
RESIZED, REFUSED = "SliceResized", "ResizeRefused"


async def apply(parts: Parts) -> int:
    """Bring every seat to its record; how many were. Raises OSError: the rest then keep what they have for now."""
    changed = 0
    for seat in tuple(parts.seats):
        pod = parts.pods.get(seat.grant.pod.uid)
        share = pod.share(seat.grant.container) if pod is not None else None
        if pod is None or share is None or not _concerned(seat, pod):
            continue
        wanted = _wanted(seat, share, parts)
        if wanted == seat.grant.slices:
            continue
        text = _objection(seat, pod, replace(share, slices=wanted), parts)
        if text is not None:
            parts.outcome.told(pod, "Warning", REFUSED, f"container {share.name} keeps what it has: {text}")
            continue
        await _resize(seat, pod, share, wanted, parts)
        changed += 1
    return changed


def _concerned(seat: Seat, pod: BoundPod) -> bool:
    """Whether it runs with the library, and its record can be read. Before it is verified, it may be another pod's."""
    verified = seat.state is State.COMPLETED and seat.verified and not seat.broken
    return verified and needs_policy(seat.grant) and pod.problem is None and not pod.over


def _wanted(seat: Seat, share: Share, parts: Parts) -> ContainerSlices:
    return ordered(share.slices, {card.id: card for card in parts.cards.cards()})


def _objection(seat: Seat, pod: BoundPod, share: Share, parts: Parts) -> str | None:
    if {one.card for one in share.slices} != {one.card for one in seat.grant.slices}:
        return "its record names other cards, which only a new pod can get"
    if not has_broker(seat.grant):
        return "it was started without a broker: delete the pod to give it the new size"
    seated = {each.grant.pod.uid for each in parts.seats}
    granted = [each for each in asking(parts.pods.in_order()) if each.ref.uid in seated]
    return overpromise(pod, share, parts.cards.cards(), granted)


async def _resize(seat: Seat, pod: BoundPod, share: Share, slices: ContainerSlices, parts: Parts) -> None:
    """The file first: what is cut short on the way leaves a seat that differs from its record, and is done again."""
    grant = replace(seat.grant, slices=slices)
    try:
        policy = policy_of(grant, share, parts.cards.cards(), parts.host)
        await asyncio.to_thread(parts.folders.write, seat.key, policy)
        await parts.seats.change(put=[replace(seat, grant=grant)])
    except Malformed as fault:
        parts.outcome.told(pod, "Warning", REFUSED, f"container {share.name} keeps what it has: {fault}")
        return
    sizes = ", ".join(f"{one.mem_mib} MiB and {one.core_percent} % of {one.card}" for one in slices)
    parts.outcome.told(pod, "Normal", RESIZED, f"container {share.name} has {sizes} from now on")
    parts.seats.on_change()
