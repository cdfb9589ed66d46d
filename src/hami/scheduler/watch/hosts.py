"""What is left of each host's CPU, for the policy `pack`: allocatable less what all bound pods request.

Fed by the same events as the ledger, and only where `pack` decides: a pod without cards is nothing
to the other policies. A preference, no limit: kube-scheduler itself tests CPU.
"""

from hami.ledger.cluster import Ledger
from hami.model.errors import Malformed
from hami.model.ids import NodeName, PodUid
from hami.vendors.ask import cpu_milli
from hami.wire import quantity
from hami.wire.objects import Node, Pod


class Hosts:
    """Milli-CPU by node. Nodes and pods may come in any order, and more than once."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._allocatable: dict[str, int] = {}
        self._used: dict[str, int] = {}
        self._pods: dict[str, tuple[str, int]] = {}

    def node(self, node: Node) -> None:
        """A node is there, in the ledger too."""
        try:
            cpu = int(quantity.parse(node.status.allocatable.get("cpu", "0")) * 1000)
        except Malformed:
            return
        self._allocatable[node.metadata.name] = cpu
        self._tell(node.metadata.name)

    def pod(self, pod: Pod) -> None:
        """A pod that has not finished."""
        uid, name = pod.metadata.uid, pod.spec.node_name
        if not name or uid in self._pods:
            return
        cpu = cpu_milli(pod)
        self._pods[uid] = (name, cpu)
        self._add(name, cpu)

    def gone(self, uid: PodUid) -> None:
        """A pod has finished or is deleted."""
        found = self._pods.pop(uid, None)
        if found is not None:
            self._add(found[0], -found[1])

    def begin(self) -> None:
        """All pods are about to be told again."""
        self._pods.clear()
        self._used.clear()

    def node_gone(self, name: str) -> None:
        """A node is deleted; what its pods use is given back as they go."""
        self._allocatable.pop(name, None)

    def _add(self, name: str, cpu: int) -> None:
        self._used[name] = self._used.get(name, 0) + cpu
        self._tell(name)
        if not self._used[name]:
            del self._used[name]

    def _tell(self, name: str) -> None:
        if name in self._allocatable:
            whole = self._allocatable[name]
            self._ledger.set_host(NodeName(name), max(0, whole - self._used.get(name, 0)), whole)
