"""A pod's gang, named by labels or annotations as coscheduling names pod groups."""

from collections.abc import Mapping

from hami.model.ask import Gang
from hami.wire.objects import Metadata

NAMES = (
    "scheduling.x-k8s.io/pod-group",
    "pod-group.scheduling.sigs.k8s.io/name",
    "pod-group.scheduling.sigs.k8s.io",
)
LEAST = (
    "scheduling.x-k8s.io/min-member",
    "pod-group.scheduling.sigs.k8s.io/min-available",
    "pod-group.scheduling.sigs.k8s.io/min-member",
)
MOST = 10_000


def gang_of(metadata: Metadata) -> Gang | None:
    """The pod's gang; None for a pod without, and where the least number is missing, unreadable or one."""
    name, least = _written(metadata, NAMES), _written(metadata, LEAST)
    if not name or not (least.isascii() and least.isdigit() and len(least) <= 5):
        return None
    return Gang(name, int(least)) if 1 < int(least) <= MOST else None


def doubts(metadata: Metadata) -> tuple[str, ...]:
    """A gang that is named and cannot be kept together."""
    name, least = _written(metadata, NAMES), _written(metadata, LEAST)
    if name and not least:
        return (f"pod group {name[:80]} has no least number: its pods start one by one; set the annotation {LEAST[0]}",)
    if name and gang_of(metadata) is None and least != "1":
        return (
            f"{LEAST[0]}: {least[:40]!r} is not usable: a whole number from 1 to {MOST}; its pods start one by one",
        )
    return ()


def _written(metadata: Metadata, keys: tuple[str, ...]) -> str:
    places: tuple[Mapping[str, str], ...] = (metadata.labels or {}, metadata.annotations or {})
    return next((place[key].strip() for key in keys for place in places if place.get(key)), "")
