"""A running container's record has other numbers than what it was given: it gets them without a restart.

Only numbers: the cards were mounted when it started. The record is the scheduler's word, which admission keeps from
others; here it is judged by what the card has. The policy file is written anew, and the broker tells the library.

A resize that a full disk cuts short leaves an unsettled seat, whose file may be ahead of it: it is brought to its
record again, round by round, also where the record has meanwhile gone back to what the seat says.
"""

import logging

from msgspec.structs import replace

from hami.agent.bound import BoundPod, Share
from hami.agent.grant import ordered
from hami.agent.grants.allocate import Parts
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.grants.objection import overpromise
from hami.agent.grants.policy import has_broker, ledger_of, needs_policy, policy_of
from hami.model.errors import Malformed
from hami.model.plan import ContainerSlices
from hami.wire.policy import encode

log = logging.getLogger(__name__)
RESIZED, REFUSED, WAITS = "SliceResized", "ResizeRefused", "ResizeWaits"


async def apply(parts: Parts) -> int:
    """Bring every seat to its record; how many were. Raises the last OSError that kept one from it, all others done."""
    changed = 0
    cut_short: OSError | None = None
    for key in [seat.key for seat in parts.seats]:
        seat = parts.seats.get(key)  # as it is now: it may have gone to another pod while one before it was written
        if seat is None:
            continue
        pod = parts.pods.get(seat.grant.pod.uid)
        share = pod.share(seat.grant.container) if pod is not None else None
        if pod is None or share is None or not _concerned(seat, pod):
            continue
        wanted = _wanted(seat, pod, share, parts)
        if wanted == seat.grant.slices and not seat.unsettled:
            continue
        try:
            changed += await _resize(seat, pod, share, wanted, parts)
        except OSError as fault:
            text = f"container {share.name}: its new size waits for the node's disk: {fault}"
            parts.outcome.told(pod, "Warning", WAITS, text)
            cut_short = fault
    if cut_short is not None:
        raise cut_short
    return changed


def _concerned(seat: Seat, pod: BoundPod) -> bool:
    """Whether it runs with the library, and its record can be read. Before it is verified, it may be another pod's."""
    verified = seat.state is State.COMPLETED and seat.verified and not seat.broken
    return verified and needs_policy(seat.grant) and pod.problem is None and not pod.over


def _wanted(seat: Seat, pod: BoundPod, share: Share, parts: Parts) -> ContainerSlices:
    """What its record gives it, or, where that may not be, what it has; then people are told why."""
    wanted = ordered(share.slices, {card.id: card for card in parts.cards.cards()})
    if wanted == seat.grant.slices:
        return wanted
    text = _objection(seat, pod, replace(share, slices=wanted), parts)
    if text is None:
        return wanted
    parts.outcome.told(pod, "Warning", REFUSED, f"container {share.name} keeps what it has: {text}")
    return seat.grant.slices


def _objection(seat: Seat, pod: BoundPod, share: Share, parts: Parts) -> str | None:
    if {one.card for one in share.slices} != {one.card for one in seat.grant.slices}:
        return "its record names other cards, which only a new pod can get"
    if not has_broker(seat.grant):
        return "it was started without a broker: delete the pod to give it the new size"
    return overpromise(pod, share, parts.cards.cards(), parts.granted())


async def _resize(seat: Seat, pod: BoundPod, share: Share, slices: ContainerSlices, parts: Parts) -> bool:
    """The file and the seat together, so that no container start comes between. False: it has what it had."""
    grant = replace(seat.grant, slices=slices)
    changed = slices != seat.grant.slices
    try:
        policy = policy_of(grant, share, parts.cards.cards(), parts.host)
        encode(policy)  # what the library would refuse is refused before anything is begun

        def write() -> None:
            nonlocal changed
            changed = parts.folders.write(seat.key, policy, ledger_of(grant)) or changed

        there = await parts.seats.revise(seat, grant, write)
    except Malformed as fault:
        parts.outcome.told(pod, "Warning", REFUSED, f"container {share.name} keeps what it has: {fault}")
        return False
    if not there or not changed:
        return False
    sizes = ", ".join(f"{one.mem_mib} MiB and {one.core_percent} % of {one.card}" for one in slices)
    log.info("slice resized", extra={"pod": str(pod.ref), "container": share.name, "now": sizes})
    parts.outcome.told(pod, "Normal", RESIZED, f"container {share.name} has {sizes} from now on")
    return True
