"""After a restart, or with the checkpoint lost: seats from what kubelet and the API server still know.

A broken checkpoint never grants more: a seat is rebuilt only where kubelet's own file shows the answer it keeps, with
the sizes of that answer, and where it is otherwise what the pod's record gives. If the container was resized since, its
record is judged anew (`resize`). Where kubelet's file is lost as well, the folder that a running container has mounted
says whose it is and what it is held to: with that it keeps its broker. The rest stays unknown: its containers do not
start again until their pods are new.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from msgspec.structs import replace

from hami.agent.bound import BoundPod, Share
from hami.agent.grant import ALLOCATION, BROKER_FOLDER, build, fixed_part, ordered
from hami.agent.grants.allocate import Parts
from hami.agent.grants.answer import fixed_part_of
from hami.agent.grants.checkpoint import Seat, State
from hami.agent.grants.policy import ledger_of, needs_policy
from hami.agent.kubelet.podresources import Kept
from hami.model.grant import Grant, Mount
from hami.model.ids import CardId, PodUid
from hami.model.plan import ContainerSlices, Slice
from hami.wire.policy import LEDGER_PATH, CardLimit, LibraryPolicy
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
    cards = parts.cards.cards()
    given = replace(share, slices=given_by(answer.envs, ordered(share.slices, {card.id: card for card in cards})))
    grant = _with_ledger_of(answer, build(pod.ref, given, ids, key=key, cards=cards, host=parts.host), key)
    if not share.slices or fixed_part(grant) != fixed_part_of(answer):
        return None
    return Seat(key, grant, State.COMPLETED, verified=True, unsettled=True)


def given_by(env: Mapping[str, str], slices: ContainerSlices) -> ContainerSlices:
    """The slices with the sizes that a container's environment was given at its start; of whole cards it says none."""
    return tuple(
        replace(
            one,
            mem_mib=_number(env.get(f"CUDA_DEVICE_MEMORY_LIMIT_{index}", "").removesuffix("m"), one.mem_mib),
            core_percent=_number(
                env.get(f"CUDA_DEVICE_SM_LIMIT_{index}", env.get("CUDA_DEVICE_SM_LIMIT", "")), one.core_percent
            ),
        )
        for index, one in enumerate(slices)
    )


def _with_ledger_of(answer: messages.ContainerAllocateResponse, grant: Grant, key: str) -> Grant:
    """With the ledger where the container was told that it is, which may be elsewhere than ledgers are made now."""
    told = next((one.host_path for one in answer.mounts if one.container_path == LEDGER_PATH), "")
    if not _is_ledger(Path(told), key):
        return grant
    mounts = tuple(replace(one, host_path=told) if one.container_path == LEDGER_PATH else one for one in grant.mounts)
    return replace(grant, mounts=mounts)


def _is_ledger(path: Path, key: str) -> bool:
    """Whether `host.ledger` gives such a path for some setting: it will be made there, and removed with its pod."""
    if not path.is_absolute() or ".." in path.parts:
        return False
    return path.name == key or path.parts[-4:] == ("vgpu", "allocations", key, "ledger")


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else otherwise


def take_over(parts: Parts) -> None:
    """What an agent before us has granted. What it had only started is undone: kubelet never had an answer."""
    for key in parts.seats.load():
        parts.folders.remove(key)


async def rebuild(parts: Parts) -> int | None:
    """Seats for all that kubelet keeps and we do not know of; how many were found. None: what it keeps is not known."""
    keeps = parts.kept()
    if keeps is None:
        return None
    known = {(one.grant.pod.uid, one.grant.container, one.ids) for one in parts.seats}
    found = []
    for kept in keeps:
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


async def from_folders(parts: Parts) -> int:
    """Seats for containers that run on a folder nobody knows of; how many. Call after `rebuild`, before `sweep`.

    None of them is granted more by that than its folder says, which is what holds it now. The folders are root's, and
    only an agent writes there. A container that has a seat runs on that one's folder.
    """
    seated = {(one.grant.pod.uid, one.grant.container) for one in parts.seats}
    found = []
    for key in sorted(parts.folders.keys() - {one.key for one in parts.seats}):
        policy = parts.folders.read(key)
        made = _of_folder(key, policy, parts) if policy is not None else None
        if made is not None and (made.grant.pod.uid, made.grant.container) not in seated:
            found.append(made)
    await parts.seats.change(put=found)
    return len(found)


def _of_folder(key: str, policy: LibraryPolicy, parts: Parts) -> Seat | None:
    """The seat of a container that runs; None where it does not, or where its record gives it other cards.

    Its ids are unknown, and mean nothing any more: kubelet has forgotten them, and hands them out again.
    """
    uid, _, name = policy.container.partition("/")
    pod = parts.pods.get(PodUid(uid))
    share = pod.share(name) if pod is not None else None
    if pod is None or share is None or pod.over or not pod.runs(name):
        return None
    limits = {one.uuid: one for one in policy.cards}
    if {one.card for one in share.slices} != limits.keys():
        return None
    full = {card.id: card.mem_mib for card in parts.cards.cards()}
    given = replace(share, slices=tuple(_held_to(one, limits[one.card], full) for one in share.slices))
    grant = build(pod.ref, given, (), key=key, cards=parts.cards.cards(), host=parts.host)
    mounts = tuple(one for one in grant.mounts if policy.broker is not None or one.container_path != BROKER_FOLDER)
    grant = replace(grant, mounts=_ledger_found(mounts, key, parts))
    return Seat(key, grant, State.COMPLETED, verified=True, unsettled=True) if needs_policy(grant) else None


def _held_to(one: Slice, limit: CardLimit, full: Mapping[CardId, int]) -> Slice:
    """The slice with the sizes of a policy, in which the whole of a card is no number."""
    mem_mib = full.get(one.card, one.mem_mib) if limit.mem_mib is None else limit.mem_mib
    core_percent = one.core_percent if min(one.core_percent, 100) == limit.core_percent else limit.core_percent
    return replace(one, mem_mib=mem_mib, core_percent=core_percent)


def _ledger_found(mounts: tuple[Mount, ...], key: str, parts: Parts) -> tuple[Mount, ...]:
    """With the ledger where it is: in the folder, if it is not where ledgers are made now."""
    inside = f"{parts.host.folder(key)}/ledger"
    return tuple(
        replace(one, host_path=inside)
        if one.container_path == LEDGER_PATH and not Path(one.host_path).exists() and Path(inside).exists()
        else one
        for one in mounts
    )


async def forget(parts: Parts) -> list[str]:
    """Drop the seats of pods that are gone or finished, and their folders. Call only when all pods are known."""
    gone = [one for one in parts.seats if (pod := parts.pods.get(one.grant.pod.uid)) is None or pod.pod.finished]
    await parts.seats.change(drop=[one.key for one in gone])
    for one in gone:
        parts.folders.remove(one.key, ledger_of(one.grant))
    return [one.key for one in gone]


def sweep(parts: Parts) -> None:
    """Remove folders that no seat has; only after `rebuild`, or running containers lose their policy at a restart."""
    for key in parts.folders.keys() - {one.key for one in parts.seats}:
        parts.folders.remove(key)
