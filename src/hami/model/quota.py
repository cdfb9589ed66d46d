"""A namespace's quota of cards: what is limited, what is spent, what is left.

Amounts are in the engine's units (cards, MiB, percent of a card); `unit` turns them
back into what the resource counts, for messages.
"""

from enum import Enum

from msgspec import Struct

from hami.model.ids import Family


class Measure(Enum):
    """What a resource counts of its family."""

    CARDS = "cards"
    MEMORY = "memory"
    CORES = "cores"


class Quantum(Struct, frozen=True):
    """A resource that a quota may limit, as its vendor describes it."""

    resource: str
    """``nvidia.com/gpumem``; the quota's key is ``limits.`` and this."""
    family: Family
    measure: Measure
    unit: int = 1
    """MiB (cards, percent) that one of the resource stands for."""

    @property
    def key(self) -> str:
        return f"limits.{self.resource}"


class Limit(Struct, frozen=True):
    """One line of a ResourceQuota."""

    quantum: Quantum
    most: int


class Spent(Struct, frozen=True):
    """What a pod takes of one family, counted as Kubernetes counts containers."""

    family: Family
    cards: int = 0
    mem_mib: int = 0
    core_percent: int = 0

    def of(self, measure: Measure) -> int:
        match measure:
            case Measure.CARDS:
                return self.cards
            case Measure.MEMORY:
                return self.mem_mib
            case Measure.CORES:
                return self.core_percent


class Budget(Struct, frozen=True):
    """A limit and what the rest of the namespace has spent of it."""

    namespace: str
    quantum: Quantum
    most: int
    used: int

    @property
    def left(self) -> int:
        return self.most - self.used

    def short(self, asked: int) -> str:
        """Why `asked` more is too much: used, asked, limit, in the resource's own unit."""
        unit = self.quantum.unit
        return (
            f"namespace {self.namespace}: {self.quantum.key}: used {_units(self.used, unit)}, "
            f"asked {_units(asked, unit)}, limit {_units(self.most, unit)}"
        )


def _units(amount: int, unit: int) -> str:
    return str(amount // unit) if amount % unit == 0 else f"{amount / unit:.2f}"
