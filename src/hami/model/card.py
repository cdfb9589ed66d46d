"""A card: one physical accelerator as its node registers it."""

from msgspec import Struct

from hami.model.ids import CardId, Family

MIG = "mig"
"""The mode of a card that is given out as MIG instances."""


class Placement(Struct, frozen=True):
    """A legal position of a MIG instance, in memory slices: [start, start + size)."""

    start: int
    size: int


class MigProfile(Struct, frozen=True):
    """A MIG instance size a card offers, e.g. ``2g.10gb``."""

    name: str
    mem_mib: int
    core_percent: int
    slices: int
    placements: tuple[Placement, ...]


class Instance(Struct, frozen=True, order=True):
    """A MIG instance on a card, planned or made: memory slices [start, start + size)."""

    profile: str
    start: int
    size: int


class Card(Struct, frozen=True):
    """Capacity of one card. Memory and cores are after the node's scaling factors."""

    id: CardId
    family: Family
    model: str
    index: int
    slots: int
    """How many slices may share the card at once (HAMi: split count)."""
    mem_mib: int
    core_percent: int
    """100 for an unscaled card."""
    numa: int = 0
    mode: str = "hami-core"
    """``hami-core``, ``mig`` or ``mps``."""
    healthy: bool = True
    mig_profiles: tuple[MigProfile, ...] = ()
