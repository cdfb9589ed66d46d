"""Explanations: the decision's own reasons, and fixes that hold what they promise."""

from random import Random

import msgspec
from hypothesis import given, settings
from msgspec.structs import replace

from hami.model.ask import Ask, PodRef
from hami.model.ids import PodUid
from hami.model.plan import Charge, Plan
from hami.model.refusal import Reason, Refusal
from hami.plan.explain import CardVerdict, Change, Explanation, Fix, explain
from hami.plan.fit import fit, wants
from hami.plan.preempt import Holder
from hami.plan.snapshot import NodeState

from . import builders as make
from .builders import app, node, pod, used, want


def changes(found: Explanation) -> dict[Change, int | None]:
    return {fix.change: fix.value for fix in found.fixes}


def test_a_node_that_fits_shows_its_plan_and_the_scores_of_its_cards() -> None:
    found = explain(pod(app(want(1000, cores=20))), node(used("d0", 1, 2000, 25), used("d1", healthy=False)))
    assert found.plan is not None
    assert found.cards == (
        CardVerdict("d0", "app", score=10 * (2 / 10 + 45 / 100 + 3000 / 8000)),
        CardVerdict("d1", "app", reason=Reason.NOT_HEALTHY),
    )
    assert found.fixes == ()


def test_a_node_that_refuses_says_what_each_card_lacks_and_what_would_help() -> None:
    found = explain(pod(app(want(5000, cores=10, cards=2))), node(used("d0", mem=2000), used("d1", mem=4000)))
    assert found.cards[1] == CardVerdict("d1", "app", None, Reason.INSUFFICIENT_MEMORY, 5000, 4000)
    assert found.refusal == (
        "1/2 AllocatedCardsInsufficientRequest, 1/2 CardInsufficientMemory: "
        "asks 2 cards, 1 of 2 fit; missing 1000 MiB on the next card"
    )
    assert changes(found) == {Change.LESS_MEMORY: 4000, Change.FEWER_CARDS: 1}
    assert found.fixes[0].text == "ask at most 4000 MiB a card"


def test_rules_cordons_and_neighbours_are_named_as_fixes() -> None:
    typed = explain(pod(app(want(use_types=("H100",)))), node(used()))
    assert changes(typed) == {Change.NO_RULES: None}
    bound = explain(pod(app(want(cards=2, numa_bind=True))), node(used("d0", numa=0), used("d1", numa=1)))
    assert changes(bound) == {Change.FEWER_CARDS: 1, Change.ANY_NUMA: None}
    cordoned = explain(pod(app(want())), node(used(cordoned=True)))
    assert cordoned.fixes == (Fix(Change.UNCORDON, "uncordon card d0", card="d0"),)
    neighbour = Holder(PodRef("ns", "big", PodUid("big")), (Charge("d0", 1, 8000, 0),), 0)
    full = explain(pod(app(want(1000))), node(used(slots=1, mem=8000)), [neighbour])
    assert changes(full) == {Change.MOVE_POD: None}
    assert full.fixes[-1].text == "move pod ns/big to another node"


def test_a_node_with_a_problem_offers_no_fix_of_the_ask() -> None:
    assert explain(pod(app(want())), node(used(), problem="no handshake")).fixes == ()


def test_an_explanation_is_plain_json() -> None:
    found = explain(pod(app(want(9000))), node(used()))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found


@settings(max_examples=150, deadline=None)
@given(make.SEEDS)
def test_explanations_agree_with_the_decision_and_fixes_fix(seed: int) -> None:
    random = Random(seed)
    ask, state = make.random_ask(random), make.random_node(random)
    found, result = explain(ask, state), fit(ask, state)
    assert found.plan == (result if isinstance(result, Plan) else None)
    assert found.refusal == (result.text if isinstance(result, Refusal) else None)
    for fix in found.fixes:
        less = _applied(fix, ask)
        if less is not None:
            assert isinstance(fit(less, state), Plan), fix
            more = _applied(replace(fix, value=(fix.value or 0) + 1), ask)
            assert more is not None
            assert isinstance(fit(more, state), Refusal), fix


def _applied(fix: Fix, ask: Ask) -> Ask | None:
    """The ask after a change of memory in MiB or of cards, capped at the value."""
    if fix.change is Change.FEWER_CARDS:
        field = "cards"
    elif fix.change is Change.LESS_MEMORY and "MiB" in fix.text:
        field = "mem_mib"
    else:
        return None
    most = fix.value or 0
    assert any((getattr(one.ask, field) or 0) > most - 1 for one in wants(ask))
    return replace(
        ask,
        containers=tuple(
            replace(
                one,
                cards=tuple(
                    cards
                    if getattr(cards, field) is None
                    else replace(cards, **{field: min(getattr(cards, field), most)})
                    for cards in one.cards
                ),
            )
            for one in ask.containers
        ),
    )


def test_the_state_is_untouched() -> None:
    state = node(used(cordoned=True))
    before: NodeState = replace(state)
    explain(pod(app(want())), state)
    assert state == before
