"""Why an ask has no place on a node where none was found: what one of its containers lacks, card by card."""

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk
from hami.model.card import MIG
from hami.model.errors import Bug
from hami.model.refusal import CardRefusal, Reason, Refusal
from hami.plan.exact import mig, refuse
from hami.plan.exact.draft import Draft
from hami.plan.exact.rules import kind_accepted
from hami.plan.exact.rules import refuse as refuse_card
from hami.plan.exact.wants import Want
from hami.plan.snapshot import CardState, NodeState


def why(ask: Ask, node: NodeState) -> Refusal:
    """Why `ask` does not fit: a container that cannot even run there alone, else that they meet."""
    draft = Draft(ask, node)
    for want in draft.wants:
        refusal = shortfall(draft, want)
        if refusal is not None:
            return refusal
    for place, want in enumerate(draft.wants):
        refusal = shortfall(draft, want)
        if refusal is not None:
            return replace(refuse.NOT_TOGETHER, cards=refusal.cards)
        draft.take(place, next(draft.choices(want)))
    raise Bug(f"no container of {ask.pod} lacks cards on {node.name}, and yet there is no plan")


def shortfall(draft: Draft, want: Want) -> Refusal | None:
    """Why `want` alone has too few cards as the draft has left them, None if it has enough."""
    ask, states = want.ask, draft.states(want.ask.family)
    if not states:
        return refuse.no_family(ask.family)
    if len(states) < ask.cards and not any(_divisible(ask, state) for state in states):
        return refuse.too_few(ask.cards, len(states))
    able = Counter(one.card.numa for one in draft.candidates(want))
    accepted = able.total()
    together = max(able.values(), default=0) if ask.rules.numa_bind else accepted
    if together >= ask.cards:
        return None
    refused = _refused(ask, states, draft.idle_only, enough=accepted >= ask.cards)
    counts = Counter(one.reason for one in refused)
    form = refuse.by_cards(counts, total=len(states), asked=ask.cards, accepted=accepted, together=together)
    return _with_places(form.say(_missing(refused), refused), ask, states)


def _divisible(ask: CardAsk, state: CardState) -> bool:
    """Whether one card may serve several units of the ask, as instances."""
    return state.card.mode == MIG and kind_accepted(ask.rules, state.card.model, state.card.mode)


def _refused(ask: CardAsk, states: Sequence[CardState], idle_only: bool, *, enough: bool) -> list[CardRefusal]:
    """Cards that a rule refuses; where too few are left, those in MIG mode too that have no place for as many
    instances as are asked."""
    refused = [one for state in states if (one := refuse_card(ask, state, idle_only)) is not None]
    if enough:
        return refused
    out = {one.card for one in refused}
    crowded = (state for state in states if state.card.mode == MIG and state.card.id not in out)
    return refused + [mig.infeasible(ask, state) for state in crowded]


def _with_places(refusal: Refusal, ask: CardAsk, states: Sequence[CardState]) -> Refusal:
    """Of cards in MIG mode that are too full it says what is in the way."""
    full = {one.card for one in refusal.cards if one.reason is Reason.MIG_INFEASIBLE}
    if not full:
        return refusal
    said = mig.explain(ask, (state for state in states if state.card.id in full))
    return replace(refusal, detail=f"{refusal.detail}; {said}" if refusal.detail else said)


def _missing(refused: Sequence[CardRefusal]) -> int | None:
    """MiB that the best of the cards refused for memory lacks."""
    lacking = [(one.needed or 0) - (one.had or 0) for one in refused if one.reason is Reason.INSUFFICIENT_MEMORY]
    return min(lacking, default=None)
