"""Disruption budgets: whom they cover, and how many of several pods they let go.

The Eviction API keeps each budget by itself, a dry run of it too; what several evictions take together is counted here.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from hami.model.ids import PodUid
from hami.wire.objects import Metadata, Pod
from hami.wire.snapshot import BudgetEntry


class Requirement(Struct, frozen=True):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class Selector(Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Kubernetes' rule: all must hold; an empty selector covers everything."""
        return all(labels.get(key) == value for key, value in (self.match_labels or {}).items()) and all(
            _meets(one, labels) for one in self.match_expressions or ()
        )


class BudgetSpec(Struct, frozen=True):
    selector: Selector | None = None
    """None covers nothing."""


class BudgetStatus(Struct, frozen=True, rename="camel"):
    disruptions_allowed: int = 0


class DisruptionBudget(Struct, frozen=True):
    """The part of a ``policy/v1`` PodDisruptionBudget that is read."""

    metadata: Metadata = Metadata()
    spec: BudgetSpec = BudgetSpec()
    status: BudgetStatus = BudgetStatus()


def budget_entries(budgets: Iterable[DisruptionBudget], pods: Iterable[Pod]) -> list[BudgetEntry]:
    """Which of these pods each budget covers; budgets that cover none are left out."""
    by_namespace: dict[str, list[Pod]] = {}
    for pod in pods:
        by_namespace.setdefault(pod.metadata.namespace, []).append(pod)
    found = []
    for budget in budgets:
        name, namespace, selector = budget.metadata.name, budget.metadata.namespace, budget.spec.selector
        here = by_namespace.get(namespace, ())
        uids = [
            PodUid(pod.metadata.uid)
            for pod in here
            if selector is not None and selector.covers(pod.metadata.labels or {})
        ]
        if uids:
            found.append(BudgetEntry(namespace, name, max(0, budget.status.disruptions_allowed), tuple(sorted(uids))))
    return sorted(found, key=lambda one: (one.namespace, one.name))


def _meets(one: Requirement, labels: Mapping[str, str]) -> bool:
    match one.operator:
        case "In":
            return labels.get(one.key) in (one.values or ())
        case "NotIn":
            return labels.get(one.key) not in (one.values or ())
        case "Exists":
            return one.key in labels
        case "DoesNotExist":
            return one.key not in labels
        case _:
            return True  # unknown: rather protect a pod too many


def overdrawn(budgets: Iterable[BudgetEntry], leaving: Sequence[PodUid]) -> set[PodUid]:
    """Of pods that leave in this order, those for whom a budget has nothing left."""
    found: set[PodUid] = set()
    for budget in budgets:
        found.update([uid for uid in leaving if uid in budget.pods][budget.allowed :])
    return found


def costs(pod: Pod) -> bool:
    """Whether evicting the pod takes something of its budgets: one that is not ready serves nobody, and is let go."""
    ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
    return ready and pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None
