"""The ledger as others may look at it: values, made on request, for metrics, console and snapshots."""

from msgspec import Struct

from hami.ledger.records import PodRecord
from hami.model.ids import NodeName
from hami.model.reservation import Reservation
from hami.plan.snapshot import NodeState


class NodeView(Struct, frozen=True):
    """One node and who is on it."""

    name: NodeName
    state: NodeState | None
    """None while pods are bound there and the node is not registered."""
    pods: tuple[PodRecord, ...]
    """Sorted by uid."""
    reservations: tuple[Reservation, ...]


class ClusterView(Struct, frozen=True):
    """Everything, nodes sorted by name."""

    nodes: tuple[NodeView, ...]

    @property
    def pods(self) -> int:
        return sum(len(node.pods) for node in self.nodes)

    @property
    def reservations(self) -> int:
        return sum(len(node.reservations) for node in self.nodes)
