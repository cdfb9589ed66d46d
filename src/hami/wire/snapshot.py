"""A cluster at one moment, as a file: nodes with cards, pods with what they ask and hold, disruption budgets, quotas.

Written by `hami record --snapshot` and the scheduler's API, read by `hami explain`, `fit`, `frag` and the
simulator. The fields are a promise (docs/reference/record.md): a new one has a default, none is renamed
without a new version. Knows no Kubernetes object and no ledger.
"""

import re
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import fields, replace

from hami.model.ask import Ask, ContainerAsk, ContainerKind, NodePolicy, PodRef, Policies, Weights
from hami.model.card import Card, MigProfile
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import ContainerSlices
from hami.model.quota import Measure
from hami.wire.faults import decoded

KIND = "hami.io/snapshot"
VERSION = 1

E = TypeVar("E", bound=Struct)
Count = Annotated[int, Meta(ge=0, le=2**53)]


class CardEntry(Struct, frozen=True, omit_defaults=True):
    """A card as its node registered it; memory and cores after the node's scaling factors."""

    id: CardId
    family: Family
    model: str
    index: int
    slots: Count
    mem_mib: Count
    core_percent: Count = 100
    numa: int = 0
    mode: str = "hami-core"
    healthy: bool = True
    mig_profiles: tuple[MigProfile, ...] = ()
    cordoned: bool = False

    def card(self) -> Card:
        return msgspec.convert(self, Card, from_attributes=True)


class NodeEntry(Struct, frozen=True, omit_defaults=True):
    """A node with cards, or one that pods with slices are bound to."""

    name: NodeName
    cards: tuple[CardEntry, ...] = ()
    problem: str | None = None
    """Why nothing may be placed here now."""
    links: dict[CardId, dict[CardId, int]] = {}
    """What the links between two cards are worth."""
    cpu_milli: Count = 0
    """Allocatable; 0 is not known."""
    mem_bytes: Count = 0


class RulesEntry(Struct, frozen=True, omit_defaults=True):
    """Which cards are accepted; empty is no constraint (`model.ask.CardRules`)."""

    use_types: tuple[str, ...] = ()
    nouse_types: tuple[str, ...] = ()
    use_ids: tuple[str, ...] = ()
    nouse_ids: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    numa_bind: bool = False


class CardAskEntry(Struct, frozen=True, omit_defaults=True):
    """What a container asks of one family, a card. One of `mem_mib` and `mem_percent` is there."""

    family: Family
    cards: Count
    core_percent: Count = 0
    mem_mib: Count | None = None
    mem_percent: Count | None = None
    rules: RulesEntry = RulesEntry()


class ContainerEntry(Struct, frozen=True, omit_defaults=True):
    """One container; those that ask for no card stay in the list, since slices go by position."""

    name: str
    kind: ContainerKind = ContainerKind.APP
    cards: tuple[CardAskEntry, ...] = ()


class AskEntry(Struct, frozen=True, omit_defaults=True):
    """What a pod asks, init containers first."""

    containers: tuple[ContainerEntry, ...]
    node_policy: NodePolicy = NodePolicy.BINPACK
    card_policy: tuple[str, ...] = ("spread",)
    weights: Weights = Weights()
    priority: int = 0

    @classmethod
    def of(cls, ask: Ask) -> "AskEntry":
        whole = msgspec.convert(ask, cls, from_attributes=True)
        containers = tuple(
            _lean(ContainerEntry, replace(one, cards=tuple(_lean(CardAskEntry, cards) for cards in one.cards)))
            for one in whole.containers
        )
        return _lean(cls, replace(whole, containers=containers))

    def ask(self, pod: PodRef) -> Ask:
        """The value that is planned with."""
        containers = msgspec.convert(self.containers, tuple[ContainerAsk, ...], from_attributes=True)
        return Ask(pod, containers, self.node_policy, self.card_policy, self.weights, self.priority)


class PodEntry(Struct, frozen=True, omit_defaults=True):
    """A pod that asks for cards, or holds some. Times are unix seconds; 0 is not known."""

    namespace: str
    name: str
    uid: PodUid
    ask: AskEntry | None = None
    """None where it cannot be read (`problem` says why) or is not known."""
    node: NodeName | None = None
    """None while it waits."""
    slices: tuple[ContainerSlices, ...] = ()
    """What each container got, in the order of the record."""
    init_done: bool = False
    """Whether its init containers have ended, so that their peak no longer counts."""
    held: bool = False
    """Chosen by the scheduler and not bound yet: `node` and `slices` are the hold."""
    priority: int = 0
    problem: str | None = None
    created: float = 0.0
    bound: float = 0.0
    cpu_milli: Count = 0
    """Requested by all containers that run together."""
    mem_bytes: Count = 0

    @property
    def ref(self) -> PodRef:
        return PodRef(self.namespace, self.name, self.uid)


class BudgetEntry(Struct, frozen=True, omit_defaults=True):
    """A PodDisruptionBudget: how many of these pods may be disrupted now."""

    namespace: str
    name: str
    allowed: Count = 0
    pods: tuple[PodUid, ...] = ()


class LimitEntry(Struct, frozen=True, omit_defaults=True):
    """One line of a ResourceQuota, in the engine's units: cards, MiB, percent of a card."""

    resource: str
    family: Family
    measure: Measure
    most: Count
    unit: int = 1
    """MiB (cards, percent) that one of the resource stands for."""


class QuotaEntry(Struct, frozen=True):
    """The lines of a ResourceQuota that are about cards."""

    namespace: str
    name: str
    limits: tuple[LimitEntry, ...]


class PoliciesEntry(Struct, frozen=True):
    """What decides where a pod says nothing."""

    node: NodePolicy = NodePolicy.BINPACK
    card: tuple[str, ...] = ("spread",)

    def policies(self) -> Policies:
        return Policies(self.node, self.card)


class Snapshot(Struct, frozen=True):
    """All of it. Nodes are sorted by name, pods by namespace and name."""

    at: float
    """Unix seconds."""
    nodes: tuple[NodeEntry, ...]
    pods: tuple[PodEntry, ...]
    budgets: tuple[BudgetEntry, ...] = ()
    quotas: tuple[QuotaEntry, ...] = ()
    policies: PoliciesEntry = PoliciesEntry()
    version: int = VERSION
    kind: str = KIND


class _Head(Struct):
    """What is read first: whether the rest may be."""

    kind: str = field(default="")
    version: int = 0


_STEERING = re.compile(rb"(?<!\\)(?:\\\\)*\\(?:[bfr]|u00(?:[0189]|7[fF]))|\x7f|\xc2[\x80-\x9f]")
"""Characters that steer a terminal, as JSON may write them: a file may come from anybody, and its names are shown."""

_head = msgspec.json.Decoder(_Head).decode
_decode = msgspec.json.Decoder(Snapshot).decode


def card_entry(card: Card, cordoned: bool = False) -> CardEntry:
    return _lean(CardEntry, replace(msgspec.convert(card, CardEntry, from_attributes=True), cordoned=cordoned))


def _lean(kind: type[E], value: object) -> E:
    """`value` with its defaults being the very objects of the type, by which msgspec knows what to leave out."""
    defaults = ((one.name, one.default) for one in fields(kind))
    return kind(**{name: had for name, default in defaults if (had := getattr(value, name)) != default})


def encode(snapshot: Snapshot) -> bytes:
    """Compact JSON with a newline at its end; the same snapshot gives the same bytes."""
    return msgspec.json.encode(snapshot) + b"\n"


def decode(body: bytes, source: str = "$") -> Snapshot:
    """The snapshot in a file. Raises `Malformed` with the path of what is wrong below `source`."""
    head = decoded(_head, body, source)
    if head.kind != KIND:
        raise Malformed(f"{source}.kind", head.kind, f"{KIND}, as `hami record --snapshot` writes it")
    if head.version != VERSION:
        raise Malformed(f"{source}.version", head.version, f"{VERSION}; a newer hami wrote this file, use that one")
    found = decoded(_decode, body, source)
    if steering := _STEERING.search(body):
        raise Malformed(
            source, body[max(0, steering.start() - 32) : steering.end()], "names without control characters"
        )
    _each_once([node.name for node in found.nodes], f"{source}.nodes", "name")
    _each_once([pod.uid for pod in found.pods], f"{source}.pods", "uid")
    for number, node in enumerate(found.nodes):
        _each_once([card.id for card in node.cards], f"{source}.nodes[{number}].cards", "id")
    return found


def _each_once(names: Sequence[str], path: str, field: str) -> None:
    """A second thing of one name would take the first one's place."""
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for number, name in enumerate(names):
        if name in seen:
            raise Malformed(f"{path}[{number}].{field}", name, "each once")
        seen.add(name)
