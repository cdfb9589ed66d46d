"""The few fields of Kubernetes objects that we read, decoded straight from bytes.

Narrow on purpose: msgspec skips what is not named here at memory speed, so a
pod costs some hundred bytes and no garbage collection, whatever it carries.
"""

from datetime import datetime

from msgspec import Struct, field


class Metadata(Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class Quantities(Struct, frozen=True):
    """Limits and requests; a value is a Kubernetes quantity, as text or as a bare number."""

    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class Elsewhere(Struct, frozen=True):
    """A ``valueFrom``: that there is one is all we read (a `Raw` would keep the whole message alive)."""


class EnvVar(Struct, frozen=True, rename="camel"):
    name: str = ""
    value: str | None = None
    value_from: Elsewhere | None = None


class SecurityContext(Struct, frozen=True):
    privileged: bool | None = None


class Container(Struct, frozen=True, rename="camel"):
    name: str = ""
    resources: Quantities = Quantities()
    env: list[EnvVar] | None = None
    security_context: SecurityContext | None = None
    restart_policy: str | None = None
    """``Always`` on an init container makes it a sidecar."""


class PodSpec(Struct, frozen=True, rename="camel"):
    containers: list[Container] = []
    init_containers: list[Container] | None = None
    node_name: str | None = None
    scheduler_name: str | None = None
    runtime_class_name: str | None = None
    priority: int | None = None
    preemption_policy: str | None = None


class TerminatedState(Struct, frozen=True, rename="camel"):
    exit_code: int = 0


class RunningState(Struct, frozen=True):
    """That it runs; since when is not read."""


class ContainerState(Struct, frozen=True):
    running: RunningState | None = None
    terminated: TerminatedState | None = None


class ContainerStatus(Struct, frozen=True):
    name: str = ""
    state: ContainerState = ContainerState()


class PodCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class PodStatus(Struct, frozen=True, rename="camel"):
    phase: str = "Pending"
    init_container_statuses: list[ContainerStatus] | None = None
    conditions: list[PodCondition] | None = None


class Pod(Struct, frozen=True):
    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def finished(self) -> bool:
        return self.status.phase in ("Succeeded", "Failed")


class QuotaSpec(Struct, frozen=True):
    hard: dict[str, str | int | float] | None = None


class ResourceQuota(Struct, frozen=True):
    metadata: Metadata = Metadata()
    spec: QuotaSpec = QuotaSpec()


class NodeCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""


class NodeStatus(Struct, frozen=True):
    allocatable: dict[str, str] = field(default_factory=dict)
    capacity: dict[str, str] = field(default_factory=dict)
    conditions: list[NodeCondition] | None = None


class NodeSpec(Struct, frozen=True):
    unschedulable: bool | None = None


class Node(Struct, frozen=True):
    metadata: Metadata = Metadata()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


def deleted_by(metadata: Metadata) -> float | None:
    """The unix second by which an object should be gone; None for one that nobody deletes."""
    if metadata.deletion_timestamp is None:
        return None
    try:
        return datetime.fromisoformat(metadata.deletion_timestamp).timestamp()
    except ValueError:
        return 0.0
