"""The answers of the API and of the command line: one form (docs/reference/explain.md), less for who may see less."""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from hami.ledger.survey import Refused, Survey
from hami.model.refusal import Reason
from hami.plan.advice.fixes import Change, Fix
from hami.plan.advice.fragmentation import Fragmentation

VERSION = 1
"""Of both answers. Fields are only added within one."""

ASKERS = frozenset(
    {
        Change.LESS_MEMORY,
        Change.LESS_CORES,
        Change.LESS_OF_BOTH,
        Change.FEWER_CARDS,
        Change.ANY_NUMA,
        Change.NO_RULES,
    }
)
"""Changes of the ask itself, which name nothing of the cluster."""


class Explained(Survey, frozen=True, omit_defaults=True, kw_only=True):
    """`hami explain -o json`, `hami fit -o json`: the survey's own fields, and these."""

    detail: bool
    """Whether nodes and cards are told: who may not `get nodes` gets none."""
    kind: str
    version: int
    notes: tuple[str, ...] = ()
    """Of a pod that nobody has made yet, what the webhook would warn about; of one that waits though its cards are
    there, what it waits for."""


class Fragmented(Struct, frozen=True, kw_only=True):
    """`hami frag -o json`: the measure. `moves` are only where somebody looked for them."""

    kind: str = "hami.io/fragmentation"
    version: int = VERSION
    fragmentation: Fragmentation
    nodes: int
    cards: int


OTHERWISE = (
    "its cards are there: it waits for something else, which kubectl describe pod tells in kube-scheduler's words "
    "(CPU, memory, taints, or its turn)"
)


def whole(survey: Survey) -> Explained:
    """Everything, for one who may see it."""
    told = {name: getattr(survey, name) for name in Survey.__struct_fields__}
    return Explained(**told, detail=True, kind="hami.io/explained", version=VERSION)


def own(survey: Survey) -> Explained:
    """What one may know who may not see nodes: whether it fits, why not, and what he can change himself."""
    nearest: dict[Change, Fix] = {}
    for fix in survey.fixes:
        if fix.change in ASKERS:
            nearest.setdefault(fix.change, replace(fix, node=None))
    return replace(
        whole(survey),
        detail=False,
        plan=None,
        nodes=(),
        bound=None,
        refused=tuple(merged(survey.refused)),
        fixes=tuple(nearest.values()),
    )


def merged(refused: Iterable[Refused]) -> Iterable[Refused]:
    """Reasons without names. The words about a node's trouble may name pods of others: cut off."""
    counts: dict[str, int] = {}
    for one in refused:
        text = Reason.UNREGISTERED.value if one.text.startswith(Reason.UNREGISTERED.value) else one.text
        counts[text] = counts.get(text, 0) + one.nodes
    return (Refused(text, nodes, ()) for text, nodes in counts.items())


def discreet(explained: Explained, seen: frozenset[str]) -> Explained:
    """Pods of namespaces that are not in `seen` are not named."""
    return replace(
        explained,
        fixes=tuple(_unnamed(fix, seen) for fix in explained.fixes),
        nodes=tuple(replace(node, fixes=tuple(_unnamed(fix, seen) for fix in node.fixes)) for node in explained.nodes),
    )


def namespaces(explained: Explained) -> frozenset[str]:
    """Whose pods the fixes name."""
    fixes = (*explained.fixes, *(fix for node in explained.nodes for fix in node.fixes))
    return frozenset(fix.pod.namespace for fix in fixes if fix.pod is not None)


def _unnamed(fix: Fix, seen: frozenset[str]) -> Fix:
    if fix.pod is None or fix.pod.namespace in seen:
        return fix
    verb = "move" if fix.change is Change.MOVE_POD else "end"
    return Fix(fix.change, f"{verb} a pod that you may not see", effort=fix.effort, node=fix.node)
