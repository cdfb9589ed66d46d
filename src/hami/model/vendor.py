"""What the engine and the programs ask of a vendor; `vendors` has one file for each.

A vendor is a description: names, units, rounding, and code only where the
hardware needs it. The engine takes this protocol and names no vendor.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from hami.model.ask import CardAsk, CardRules
from hami.model.card import Card
from hami.model.ids import CardId, Family
from hami.model.quota import Quantum


class ContainerRequest(Struct, frozen=True):
    """One container as its author wrote it, Kubernetes quantities still as text."""

    name: str
    path: str
    """JSON path of the container, ``spec.containers[0]``, for messages."""
    limits: Mapping[str, str]
    requests: Mapping[str, str]
    env: Mapping[str, str | None]
    """Literal environment; None where the value comes from elsewhere (valueFrom)."""


class ContainerChange(Struct, frozen=True):
    """What the webhook must write into a container so that it means what its author meant."""

    limits: Mapping[str, str] = {}
    """Resources to add or replace."""
    env: Mapping[str, str] = {}
    """Environment to add; a name the container already has keeps its place but gets this value."""


class PodChange(Struct, frozen=True):
    """What the webhook must write into the pod for this vendor."""

    asks: bool
    """Whether any container asks for this vendor's cards."""
    containers: tuple[ContainerChange, ...]
    """One for each request given, in its order."""
    runtime_class: str | None = None
    warnings: tuple[str, ...] = ()


class Vendor(Protocol):
    """One accelerator family. All methods are pure; bad input raises `Malformed`."""

    @property
    def family(self) -> Family:
        """As HAMi's records spell it: ``NVIDIA``."""

    @property
    def resources(self) -> Sequence[str]:
        """Every resource name of the family, the count first."""

    @property
    def mig(self) -> bool:
        """Whether its cards can be given out as MIG instances, whose places a record tells."""

    @property
    def quotas(self) -> Sequence[Quantum]:
        """Resources of the family that a namespace's quota may limit."""

    @property
    def annotations(self) -> Sequence[str]:
        """Pod annotations by which users choose among the family's cards."""

    @property
    def register_annotation(self) -> str:
        """Node annotation that lists the cards."""

    @property
    def links_annotation(self) -> str | None:
        """Node annotation that says what the links between cards are worth; None for a family without."""

    @property
    def to_allocate_annotation(self) -> str:
        """Pod annotation whose entries the node agent empties as it grants them."""

    @property
    def allocated_annotation(self) -> str:
        """Pod annotation that keeps the decision."""

    def complete(self, containers: Sequence[ContainerRequest], annotations: Mapping[str, str]) -> PodChange:
        """What a new pod lacks: implied counts, exclusive defaults, environment."""

    def card_ask(self, container: ContainerRequest, rules: CardRules) -> CardAsk | None:
        """The container's ask; None when it asks for none of this family."""

    def rules(self, annotations: Mapping[str, str]) -> CardRules:
        """Type, uuid, mode and NUMA rules from the pod's annotations."""

    def decode_register(self, text: str) -> tuple[Card, ...]:
        """Cards from the register annotation, sorted by index."""

    def decode_links(self, text: str) -> Mapping[CardId, Mapping[CardId, int]]:
        """What the links between two cards are worth, from that annotation."""

    def cordoned(self, annotations: Mapping[str, str]) -> frozenset[str]:
        """Card ids the operator has cordoned on the node."""
