"""`hami frag`'s report: the measure, the largest ask that no longer fits, and the fewest moves that would free it."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from hami.ledger.filed import Filed
from hami.ledger.survey import residents_on
from hami.model.ask import Ask
from hami.model.ids import NodeName, PodUid
from hami.plan.advice.explain import CardUse, use_of
from hami.plan.advice.fragmentation import Fragmentation, measure
from hami.plan.advice.moves import Move, NoRelief, Relief, relieve
from hami.plan.advice.residents import Resident
from hami.plan.advice.seats import capacity
from hami.plan.advice.typical import Typical, learn
from hami.plan.snapshot import NodeState
from hami.plan.steps import finish
from hami.wire.snapshot import Snapshot


class NodeCards(Struct, frozen=True):
    node: str
    cards: tuple[CardUse, ...]


class Report(Struct, frozen=True, kw_only=True):
    """`hami frag -o json` (docs/reference/explain.md)."""

    kind: str = "hami.io/fragmentation"
    version: int = 1
    nodes: int
    cards: int
    fragmentation: Fragmentation
    target: str | None = None
    """The largest ask that fits nowhere and would on an empty node; null where every one fits."""
    moves: tuple[Move, ...] = ()
    target_node: str | None = None
    searched: str = ""
    """Why there are no moves: ``not needed``, ``none exist``, ``gave up``, ``not looked for``."""
    after: Fragmentation | None = None
    picture: tuple[NodeCards, ...] = ()


def report(read: Snapshot, filed: Filed, wanted: Typical | None, most: int) -> Report:
    """1. learn what is asked, 2. measure, 3. choose what to make room for, 4. look for moves, 5. measure again."""
    nodes = sorted(filed.ledger.nodes(), key=lambda node: node.name)
    typical = learn(filed.asks.values(), nodes)
    if wanted is not None:
        typical.append(wanted)
    before = finish(measure(typical, nodes))
    target = wanted or largest(typical, before, nodes)
    found = Report(
        nodes=len(nodes),
        cards=sum(len(node.cards) for node in nodes),
        fragmentation=before,
        target=target.name if target else None,
        searched="not needed",
        picture=tuple(NodeCards(node.name, tuple(map(use_of, node.cards))) for node in nodes),
    )
    if target is None or any(capacity(target.ask, node) for node in nodes):
        return found
    if most == 0:
        return replace(found, searched="not looked for")
    return _with_moves(found, read, filed, nodes, typical, target.ask, most)


def largest(typical: Sequence[Typical], measured: Fragmentation, nodes: Sequence[NodeState]) -> Typical | None:
    """The largest ask that fits nowhere, though a node would take it if it were empty."""
    by_name = {one.name: one for one in typical}
    for room in measured.rooms:
        if room.fits == 0 and any(capacity(by_name[room.name].ask, _emptied(node)) for node in nodes):
            return by_name[room.name]
    return None


def _with_moves(  # noqa: PLR0917 - one call
    found: Report,
    read: Snapshot,
    filed: Filed,
    nodes: Sequence[NodeState],
    typical: Sequence[Typical],
    ask: Ask,
    most: int,
) -> Report:
    residents = _residents(read, filed, nodes)
    allowed = {f"{one.namespace}/{one.name}": one.allowed for one in read.budgets}
    world = {node.name: node for node in nodes}
    relief = finish(relieve(ask, world, residents, allowed, most=most))
    if isinstance(relief, NoRelief):
        return replace(found, searched="none exist" if relief.searched_all else "gave up")
    return replace(
        found,
        searched="found",
        moves=relief.moves,
        target_node=relief.plan.node,
        after=_after(relief, world, residents, typical),
    )


def _after(
    relief: Relief, world: dict[NodeName, NodeState], residents: Sequence[Resident], typical: Sequence[Typical]
) -> Fragmentation:
    return finish(measure(typical, list(relief.after(world, residents).values())))


def _residents(read: Snapshot, filed: Filed, nodes: Sequence[NodeState]) -> list[Resident]:
    budgets: dict[PodUid, list[str]] = {}
    for budget in read.budgets:
        for uid in budget.pods:
            budgets.setdefault(uid, []).append(f"{budget.namespace}/{budget.name}")
    fixed = {pod.uid for pod in read.pods if pod.held or pod.problem}
    return [
        replace(one, budgets=tuple(budgets.get(one.pod.uid, ())), fixed=one.pod.uid in fixed)
        for node in nodes
        for one in residents_on(filed.ledger, node.name, filed.ask_of)
    ]


def _emptied(node: NodeState) -> NodeState:
    free = (replace(one, used_slots=0, used_mem_mib=0, used_core_percent=0, instances=()) for one in node.cards)
    return replace(node, cards=tuple(free))
