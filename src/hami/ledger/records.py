"""What the ledger is told: a node's register and a pod's record, read and checked by others."""

from msgspec import Struct

from hami.model.ask import PodRef
from hami.model.card import Card
from hami.model.ids import NodeName
from hami.model.plan import Charge, ContainerSlices
from hami.model.quota import Spent
from hami.plan.snapshot import Links


class NodeRecord(Struct, frozen=True):
    """A node as its agent registered it."""

    name: NodeName
    cards: tuple[Card, ...] = ()
    cordoned: frozenset[str] = frozenset()
    """Card ids the operator has cordoned; ids that are not here do no harm."""
    problem: str | None = None
    """Why nothing may be placed here now, in words for a user."""
    links: Links = {}
    """What the links between its cards are worth (`wire.register.decode_scores`)."""


class PodRecord(Struct, frozen=True):
    """A bound pod that is not finished: durable, from the API server."""

    ref: PodRef
    node: NodeName
    containers: tuple[ContainerSlices, ...] = ()
    charges: tuple[Charge, ...] = ()
    """From `plan.exact.charge.charges`; smaller once the init containers are done."""
    priority: int = 0
    """Of its PriorityClass, for preemption."""
    spent: tuple[Spent, ...] = ()
    """Of its namespace's quota, from `plan.exact.quota.spent`."""
    problem: str | None = None
    """Why its record cannot be read. Nobody knows what it holds, so nothing more is placed on its node."""
