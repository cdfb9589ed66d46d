"""A refusal: why a node, or a card of it, cannot serve an ask.

A refusal is a value that goes unchanged to kube-scheduler's FailedNodes,
to the pod's event and to `hami explain`.
"""

from enum import Enum

from msgspec import Struct

from hami.model.ids import CardId


class Reason(Enum):
    """HAMi's vocabulary, as users and dashboards search for it."""

    # of a card, in the order they are tested
    NOT_HEALTHY = "CardNotHealth"
    CORDONED = "CardCordoned"
    TYPE_MISMATCH = "CardTypeMismatch"
    NUMA_NOT_FIT = "NumaNotFit"
    UUID_MISMATCH = "CardUuidMismatch"
    SLOTS_EXHAUSTED = "CardTimeSlicingExhausted"
    EXCLUSIVE_CONFLICT = "ExclusiveDeviceAllocateConflict"
    QUOTA_NOT_FIT = "ResourceQuotaNotFit"
    INSUFFICIENT_MEMORY = "CardInsufficientMemory"
    INSUFFICIENT_CORE = "CardInsufficientCore"
    CORES_EXHAUSTED = "CardComputeUnitsExhausted"
    MIG_INFEASIBLE = "CardMigTopologyInfeasible"
    # of a node
    INSUFFICIENT_CARDS = "NodeInsufficientDevice"
    CARDS_PARTLY_FIT = "AllocatedCardsInsufficientRequest"
    NO_SUCH_FAMILY = "Device type not found"
    UNREGISTERED = "node unregistered"
    """Nobody has registered cards on the node, or they are not to be trusted now."""
    NOMINATED = "NodeNominatedToPod"
    """Room is being made there for a more important pod."""
    GANG_INCOMPLETE = "GangIncomplete"
    """Too few of the pod's gang fit at once, so none starts."""
    BINDING_ELSEWHERE = "PodBindingElsewhere"
    """A Binding of the pod to another node has been sent and its fate is not known yet."""


class CardRefusal(Struct, frozen=True):
    """Why one card is out: the reason and, where it is a quantity, what was needed and there."""

    card: CardId
    reason: Reason
    needed: int | None = None
    had: int | None = None


class Refusal(Struct, frozen=True):
    """Why a node is out. `counts` says how many of `total` cards fail for which reason."""

    counts: tuple[tuple[Reason, int], ...]
    total: int
    """Cards of the family on the node; 0 where the reason is the node's own."""
    detail: str = ""
    """The quantity that matters, in words: ``missing 2000 MiB on the best card``."""
    cards: tuple[CardRefusal, ...] = ()
    """Card by card; filled by an exact look, empty in a scan over many nodes."""

    @property
    def reason(self) -> Reason:
        """The reason that most cards share."""
        return max(self.counts, key=lambda entry: entry[1])[0]

    @property
    def text(self) -> str:
        """HAMi's form, ``2/2 CardInsufficientMemory``, then the detail in words."""
        if self.total:
            parts = sorted(f"{count}/{self.total} {reason.value}" for reason, count in self.counts)
        else:
            parts = sorted(reason.value for reason, _ in self.counts)
        head = ", ".join(parts)
        return f"{head}: {self.detail}" if self.detail else head
