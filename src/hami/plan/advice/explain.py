"""Why an ask fits on a node or does not, as a value: per card the reason or the score, and what would help.

The same rules and the same `fit` as the decision itself, so it never tells another story.
`ledger.survey` does this for all nodes.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from hami.model.ask import Ask
from hami.model.ids import CardId, NodeName
from hami.model.plan import Plan
from hami.model.refusal import Reason
from hami.plan.advice.fixes import Fix, fixes
from hami.plan.exact import score
from hami.plan.exact.fit import fit
from hami.plan.exact.preempt import Holder
from hami.plan.exact.rules import refuse
from hami.plan.exact.wants import wants
from hami.plan.pack import Worth
from hami.plan.policies import chain
from hami.plan.snapshot import CardState, NodeState
from hami.plan.steps import Steps, finish


class CardVerdict(Struct, frozen=True, omit_defaults=True):
    """One card and one container, as if the container were alone in its pod."""

    card: CardId
    container: str
    score: float | None = None
    """How full the card would be (`exact.score.card`); None where it is refused."""
    formula: str | None = None
    """The score as a sum one can check by hand."""
    reason: Reason | None = None
    needed: int | None = None
    """MiB, percent or slots, where the reason is a quantity."""
    had: int | None = None


class CardUse(Struct, frozen=True):
    """One card and what is taken of it, so that an explanation can be drawn."""

    card: CardId
    model: str
    index: int
    slots: int
    used_slots: int
    mem_mib: int
    used_mem_mib: int
    core_percent: int
    used_core_percent: int


class Explanation(Struct, frozen=True, omit_defaults=True):
    """One node and one ask."""

    node: NodeName
    score: float
    """How full the node is (`exact.score.node`)."""
    cards: tuple[CardVerdict, ...]
    formula: str = ""
    """The score as a sum one can check by hand."""
    plan: Plan | None = None
    refusal: str | None = None
    """The text that `FailedNodes` and events carry."""
    fixes: tuple[Fix, ...] = ()
    """The nearest first. Empty where the ask fits, or where no single change helps."""
    use: tuple[CardUse, ...] = ()
    """All cards of the node."""
    pack: Worth | None = None
    """What the node policy `pack` compares here, where it decides and the ask fits."""


def explain(ask: Ask, node: NodeState, holders: Sequence[Holder] = ()) -> Explanation:
    """`ask` on `node`. `holders` are the pods there that may be named as ones to move."""
    return finish(explaining(ask, node, holders))


def explaining(ask: Ask, node: NodeState, holders: Sequence[Holder] = ()) -> Steps[Explanation]:
    """`explain`, step by step."""
    result = fit(ask, node)
    verdicts = tuple(_verdicts(ask, node))
    found: list[Fix] = []
    if not isinstance(result, Plan) and node.problem is None:
        found = yield from fixes(ask, node, holders)
    return Explanation(
        node=node.name,
        score=score.node(node.cards),
        cards=verdicts,
        formula=score.node_formula(node.cards),
        plan=result if isinstance(result, Plan) else None,
        refusal=None if isinstance(result, Plan) else result.text,
        fixes=tuple(found),
        use=tuple(use_of(state) for state in node.cards),
    )


def use_of(state: CardState) -> CardUse:
    own = state.card
    return CardUse(
        card=own.id,
        model=own.model,
        index=own.index,
        slots=own.slots,
        used_slots=state.used_slots,
        mem_mib=own.mem_mib,
        used_mem_mib=state.used_mem_mib,
        core_percent=own.core_percent,
        used_core_percent=state.used_core_percent,
    )


def _verdicts(ask: Ask, node: NodeState) -> Iterator[CardVerdict]:
    idle_only = chain(ask.card_policy).idle_only
    for want in wants(ask):
        name = ask.containers[want.container].name
        for state in node.of(want.ask.family):
            refusal = refuse(want.ask, state, idle_only)
            if refusal is None:
                full = score.card(state.card, state.use, want.ask, ask.weights)
                formula = score.card_formula(state.card, state.use, want.ask, ask.weights)
                yield CardVerdict(state.card.id, name, full, formula)
            else:
                reason, needed, had = refusal.reason, refusal.needed, refusal.had
                yield CardVerdict(state.card.id, name, reason=reason, needed=needed, had=had)
