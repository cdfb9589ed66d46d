"""An ask: what a pod wants, per container, already completed and checked.

An `Ask` carries everything a plan needs; it knows nothing of Kubernetes
quantities or annotation texts, which `wire` and `vendors` have turned into it.
"""

from enum import Enum

from msgspec import Struct

from hami.model.ids import Family, PodUid
from hami.model.quota import Budget


class PodRef(Struct, frozen=True):
    """Which pod. The uid tells a pod from its successor of the same name."""

    namespace: str
    name: str
    uid: PodUid

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ContainerKind(Enum):
    """How Kubernetes runs a container, which decides how its share is counted."""

    INIT = "init"  # runs to its end before the next one starts
    SIDECAR = "sidecar"  # an init container with restartPolicy Always: runs on beside all later ones
    APP = "app"


class CardRules(Struct, frozen=True):
    """Which cards of its family an ask accepts. Empty means no constraint."""

    use_types: tuple[str, ...] = ()
    """Card model must contain one of these, case-insensitive."""
    nouse_types: tuple[str, ...] = ()
    use_ids: tuple[str, ...] = ()
    nouse_ids: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    """Accepted card modes (``hami-core``, ``mig``, ``mps``)."""
    numa_bind: bool = False


class CardAsk(Struct, frozen=True):
    """What one container wants of one family. Memory and cores are per card.

    Exactly one of `mem_mib` and `mem_percent` is set; a percentage is of the
    memory of the card that is chosen, rounded down.
    """

    family: Family
    cards: int
    core_percent: int
    """0 asks for no guaranteed share, 100 for the card alone."""
    mem_mib: int | None = None
    mem_percent: int | None = None
    rules: CardRules = CardRules()

    def mem_on(self, card_mem_mib: int) -> int:
        """MiB this ask takes on a card of `card_mem_mib`."""
        if self.mem_mib is not None:
            return self.mem_mib
        return card_mem_mib * (self.mem_percent or 0) // 100


class ContainerAsk(Struct, frozen=True):
    """One container's asks; `cards` is empty for one that needs no accelerator.

    Containers without an ask stay in the list: a record's entries are matched
    to containers by position.
    """

    name: str
    kind: ContainerKind
    cards: tuple[CardAsk, ...] = ()


class NodePolicy(Enum):
    BINPACK = "binpack"
    SPREAD = "spread"
    PACK = "pack"  # by what pods have been seen to ask: see plan.pack


class Weights(Struct, frozen=True):
    """How much a card's share count, cores and memory weigh in its score (HAMi: device-scoring-weights)."""

    slot: int = 1
    core: int = 1
    memory: int = 1


class Gang(Struct, frozen=True):
    """Pods that are of use only together: at least so many of the name, or none."""

    name: str
    least: int


class Policies(Struct, frozen=True):
    """What decides between nodes and between cards where a pod says nothing."""

    node: NodePolicy = NodePolicy.BINPACK
    card: tuple[str, ...] = ("spread",)


class Ask(Struct, frozen=True):
    """All a pod wants: init containers first, then app containers, in spec order."""

    pod: PodRef
    containers: tuple[ContainerAsk, ...]
    node_policy: NodePolicy = NodePolicy.BINPACK
    card_policy: tuple[str, ...] = ("spread",)
    """Chain of words in the order of their weight: the first decides, the next breaks ties."""
    weights: Weights = Weights()
    priority: int = 0
    """The pod's PriorityClass value, for preemption."""
    cpu_milli: int = 0
    """What the pod requests of its host's CPU; 0 where nobody said. Only the policy `pack` looks at it."""
    preempts: bool = True
    """Whether pods of lower priority may be evicted for it (preemptionPolicy)."""
    gang: Gang | None = None
    budgets: tuple[Budget, ...] = ()
    """Of its namespace, those that depend on the cards it gets; the ledger sets them for one decision."""

    @property
    def empty(self) -> bool:
        """Whether no container asks for an accelerator."""
        return not any(container.cards for container in self.containers)

    @property
    def families(self) -> tuple[Family, ...]:
        """Families asked for, sorted."""
        return tuple(sorted({card.family for container in self.containers for card in container.cards}))
