"""The annotations by which scheduler, agents and users talk, byte for byte HAMi v2.10's.

A device list is ``UUID,Type,MemMiB,Cores`` ended by ``:``, a container ended by
``;``, init containers first; a container without a card is a bare ``;``. Keys of
a vendor's own lists come from the vendor; this module knows no vendor.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from hami.model.errors import Bug, Malformed
from hami.model.ids import CardId, Family
from hami.model.plan import ContainerSlices, Plan, Slice
from hami.model.vendor import Vendor
from hami.wire import mig

# Written by scheduler and agents; no user may (docs/reference/annotations.md).
NODE = "hami.io/vgpu-node"
"""Node a pod's record is for; also a label of that name."""
TIME = "hami.io/vgpu-time"
"""Unix seconds of the decision."""
BIND_TIME = "hami.io/bind-time"
BIND_PHASE = "hami.io/bind-phase"
PHASE_ALLOCATING = "allocating"
PHASE_SUCCESS = "success"
PHASE_FAILED = "failed"
MIG_ALLOCATIONS = "hami.io/vgpu-mig-allocations"
NOMINATED = "hami.io/nominated"
"""On a pod that waits: where room is being made for it, by whose leaving, since when. Ours, not HAMi's."""

# Written by users on pods.
NODE_POLICY = "hami.io/node-scheduler-policy"
CARD_POLICY = "hami.io/gpu-scheduler-policy"
SCORING_WEIGHTS = "hami.io/device-scoring-weights"

# On nodes.
HANDSHAKE = "hami.io/node-handshake"
CORDON = "hami.io/device-cordon"
NODE_LOCK = "hami.io/mutex.lock"
"""HAMi's one-pod-a-node lock. Read only to tell a HAMi that is still running; we do not lock."""

# A label of pods and namespaces.
WEBHOOK_LABEL = "hami.io/webhook"
WEBHOOK_IGNORE = "ignore"

RECORD_KEYS = (NODE, TIME, BIND_TIME, BIND_PHASE, MIG_ALLOCATIONS, NOMINATED)
RECORD_SUFFIXES = ("-devices-to-allocate", "-devices-allocated")
"""Endings of every vendor's lists below ``hami.io/``."""
OTHER_RECORDS = ("hami.io/kunlun-allocated",)  # the one list of HAMi's whose key has another ending

_MAX_INT32 = 2**31 - 1
_FORBIDDEN = re.compile(r"[,:;\s]")
_HANDSHAKE_TIME = "%Y-%m-%d %H:%M:%S"


def is_record(key: str) -> bool:
    """Whether an annotation (or label) of a pod is one that only scheduler and agents write."""
    if not key.startswith("hami.io/"):
        return False
    return key in RECORD_KEYS or key in OTHER_RECORDS or key.endswith(RECORD_SUFFIXES)


def encode_devices(containers: Sequence[Sequence[Slice]]) -> str:
    """The device list of a pod, one entry a container in record order."""
    return "".join("".join(_encode_slice(one) for one in container) + ";" for container in containers)


def _encode_slice(one: Slice) -> str:
    if not one.card or _FORBIDDEN.search(one.card) or _FORBIDDEN.search(one.family):
        raise Bug(f"card {one.card!r} of {one.family!r} cannot stand in a device list")
    return f"{one.card},{one.family},{one.mem_mib},{one.core_percent}:"


def decode_devices(text: str, family: Family | None = None, path: str = "$") -> tuple[ContainerSlices, ...]:
    """One entry a container; the terminator of the last is no entry of its own.

    With `family`, an entry of another is a fault. Raises `Malformed`: a record
    that cannot be read must never count as an empty one.
    """
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    return tuple(_decode_container(part, family, f"{path}[{index}]") for index, part in enumerate(parts))


def _decode_container(text: str, family: Family | None, path: str) -> ContainerSlices:
    devices = [device for device in text.split(":") if device.strip()]
    return tuple(_decode_slice(device, family, f"{path}[{index}]") for index, device in enumerate(devices))


def _decode_slice(text: str, family: Family | None, path: str) -> Slice:
    fields = text.split(",")  # further fields than four are ignored, as HAMi does
    if len(fields) < 4 or not fields[0]:
        raise Malformed(path, text, "UUID,Type,MemMiB,Cores")
    if family is not None and fields[1] != family:
        raise Malformed(path, fields[1], f"a card of family {family}")
    return Slice(
        card=CardId(fields[0]),
        family=Family(fields[1]),
        mem_mib=_int32(fields[2], f"{path}.memory"),
        core_percent=_int32(fields[3], f"{path}.cores"),
    )


def _int32(text: str, path: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_INT32:
        return int(text)
    raise Malformed(path, text, f"a whole number from 0 to {_MAX_INT32}")


def records(plan: Plan, vendors: Sequence[Vendor], now: float) -> dict[str, str]:
    """All annotations a pod gets with its Binding; `now` in unix seconds.

    Each vendor of the plan gets its two lists, padded with the containers that
    have none of its cards.
    """
    written = {
        NODE: str(plan.node),
        TIME: str(int(now)),
        BIND_TIME: str(int(now)),
        BIND_PHASE: PHASE_ALLOCATING,
    }
    families = {one.family for container in plan.containers for one in container}
    for vendor in vendors:
        if vendor.family in families:
            own = [[one for one in container if one.family == vendor.family] for container in plan.containers]
            text = encode_devices(own)
            written[vendor.to_allocate_annotation] = text
            written[vendor.allocated_annotation] = text
            instances = mig.allocations(own)
            if instances:
                written[MIG_ALLOCATIONS] = mig.encode(instances)
    return written


def encode_handshake(word: str, now: float) -> str:
    """``Requesting_2026-08-21 06:20:39``; ours is always UTC, HAMi's the writer's local time."""
    return f"{word}_{datetime.fromtimestamp(now, UTC).strftime(_HANDSHAKE_TIME)}"


def decode_handshake(text: str) -> tuple[str, float]:
    """The word (``Requesting``, ``Reported``, ``Deleted``) and its time in unix seconds, read as UTC."""
    word, separator, stamp = text.partition("_")
    try:
        when = datetime.strptime(stamp, _HANDSHAKE_TIME).replace(tzinfo=UTC)
    except ValueError:
        when = None
    if not word or not separator or when is None:
        raise Malformed(HANDSHAKE, text, "<word>_YYYY-MM-DD HH:MM:SS")
    return word, when.timestamp()


def words(text: str | None) -> tuple[str, ...]:
    """A comma list as users write it: blanks around and between entries do not count."""
    return tuple(word for part in (text or "").split(",") if (word := part.strip()))
