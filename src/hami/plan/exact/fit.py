"""The exact decision on one node: which cards each container would get, or why it cannot."""

from hami.model.ask import Ask
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan.exact import quota, refuse, score
from hami.plan.exact.charge import charges, parts_of
from hami.plan.exact.draft import Draft
from hami.plan.exact.lacks import why
from hami.plan.exact.search import Search
from hami.plan.snapshot import NodeState


def fit(ask: Ask, node: NodeState) -> Plan | Refusal:
    """The plan for `ask` on `node`, the same for the same input, or the reason why there is none."""
    refusal = _barred(ask, node)
    if refusal is not None:
        return refusal
    draft = Draft(ask, node)
    search = Search(draft)
    if not search.run():
        return search.dear or why(ask, node)
    containers = draft.slices()
    return Plan(
        pod=ask.pod,
        node=node.name,
        containers=containers,
        charges=charges(parts_of(ask, containers)),
        generation=node.generation,
        score=score.node(node.cards),
    )


def fits(ask: Ask, node: NodeState) -> bool:
    """Whether there is a plan, for who needs neither the plan nor the reason."""
    return _barred(ask, node) is None and Search(Draft(ask, node)).run()


def _barred(ask: Ask, node: NodeState) -> Refusal | None:
    """Why no cards need be looked at. The quota first: it would be broken on a node without a problem too."""
    if ask.budgets and (refusal := quota.refuse(ask, ask.budgets)) is not None:
        return refusal
    return refuse.unusable(node.problem) if node.problem is not None else None
