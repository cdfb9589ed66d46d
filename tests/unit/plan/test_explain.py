"""Explanations: the decision's own reasons, and fixes that hold what they promise."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.model.ask import Ask, PodRef, Weights
from hami.model.ids import PodUid
from hami.model.plan import Charge, Plan
from hami.model.refusal import Reason, Refusal
from hami.plan.advice.explain import CardVerdict, Explanation, explain
from hami.plan.advice.fixes import Change, Fix, share_of
from hami.plan.exact.fit import fit
from hami.plan.exact.preempt import Holder
from hami.plan.snapshot import CardState, NodeState

from . import builders as make
from .builders import app, node, pod, used, want
from .followed import applied


def changes(found: Explanation) -> dict[Change, int | None]:
    return {fix.change: fix.value for fix in found.fixes}


def test_a_node_that_fits_shows_its_plan_and_the_scores_of_its_cards() -> None:
    found = explain(pod(app(want(1000, cores=20))), node(used("d0", 1, 2000, 25), used("d1", healthy=False)))
    assert found.plan is not None
    assert found.cards == (
        CardVerdict(
            "d0",
            "app",
            10 * (2 / 10 + 45 / 100 + 3000 / 8000),
            "10 x ((1+1)/10 slots + (20+25)/100 cores + (1000+2000)/8000 MiB)",
        ),
        CardVerdict("d1", "app", reason=Reason.NOT_HEALTHY),
    )
    assert found.fixes == ()


def test_a_node_that_refuses_says_what_each_card_lacks_and_what_would_help() -> None:
    found = explain(pod(app(want(5000, cores=10, cards=2))), node(used("d0", mem=2000), used("d1", mem=4000)))
    assert found.cards[1] == CardVerdict("d1", "app", reason=Reason.INSUFFICIENT_MEMORY, needed=5000, had=4000)
    assert found.refusal == (
        "1/2 AllocatedCardsInsufficientRequest, 1/2 CardInsufficientMemory: "
        "asks 2 cards, 1 of 2 fit; missing 1000 MiB on the next card"
    )
    assert changes(found) == {Change.LESS_MEMORY: 4000, Change.FEWER_CARDS: 1}
    assert found.fixes[0].text == "ask at most 4000 MiB a card"
    assert found.fixes[0].effort == pytest.approx(0.2)


def test_rules_cordons_and_neighbours_are_named_as_fixes() -> None:
    typed = explain(pod(app(want(use_types=("H100",)))), node(used()))
    assert changes(typed) == {Change.OTHER_TYPE: None}
    chosen = explain(pod(app(want(use_ids=("d7",)))), node(used()))
    assert changes(chosen) == {Change.NO_RULES: None}
    bound = explain(pod(app(want(cards=2, numa_bind=True))), node(used("d0", numa=0), used("d1", numa=1)))
    assert changes(bound) == {Change.FEWER_CARDS: 1, Change.ANY_NUMA: None}
    cordoned = explain(pod(app(want())), node(used(cordoned=True)))
    assert cordoned.fixes == (Fix(Change.UNCORDON, "uncordon card d0", card="d0", effort=1.0),)
    neighbour = Holder(PodRef("ns", "big", PodUid("big")), (Charge("d0", 1, 8000, 0),), 0)
    full = explain(pod(app(want(1000))), node(used(slots=1, mem=8000)), [neighbour])
    assert changes(full) == {Change.MOVE_POD: None}
    assert full.fixes[-1].text == "move pod ns/big to another node"


def test_a_node_with_a_problem_offers_no_fix_of_the_ask() -> None:
    assert explain(pod(app(want())), node(used(), problem="no handshake")).fixes == ()


def test_an_explanation_is_plain_json() -> None:
    found = explain(pod(app(want(9000))), node(used()))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_explanations_agree_with_the_decision_and_fixes_fix(seed: int) -> None:
    random = Random(seed)
    ask, state = make.random_ask(random), make.random_node(random)
    holders = tuple(
        Holder(PodRef("ns", one.card.id, PodUid(one.card.id)), (Charge(one.card.id, *one.use),), 0)
        for one in state.cards
        if one.used_slots
    )
    found, result = explain(ask, state, holders), fit(ask, state)
    assert found.plan == (result if isinstance(result, Plan) else None)
    assert found.refusal == (result.text if isinstance(result, Refusal) else None)
    assert list(found.fixes) == sorted(found.fixes)
    for fix in found.fixes:
        assert isinstance(fit(*done(fix, ask, state, holders)), Plan), fix
        more = applied(replace(fix, value=(fix.value or 0) + 1), ask)
        if fix.change in (Change.LESS_MEMORY, Change.LESS_CORES, Change.FEWER_CARDS, Change.LESS_OF_BOTH):
            assert isinstance(fit(more, state), Refusal), f"{fix} could ask for more"


def done(fix: Fix, ask: Ask, state: NodeState, holders: tuple[Holder, ...]) -> tuple[Ask, NodeState]:
    """The world after somebody did what the fix says."""
    if fix.change is Change.UNCORDON:
        freed = (replace(one, cordoned=one.cordoned and one.card.id != fix.card) for one in state.cards)
        return ask, replace(state, cards=tuple(freed))
    if fix.change is Change.MOVE_POD:
        gone = next(one for one in holders if one.pod == fix.pod)
        return ask, state.without(gone.charges)
    return applied(fix, ask), state


def test_where_neither_memory_nor_cores_alone_helps_both_are_named() -> None:
    found = explain(pod(app(want(9000, cores=50))), node(used("d0", 1, 6000, 80), used("d1", 1, 1000, 60)))
    assert found.fixes[0] == Fix(
        Change.LESS_OF_BOTH, "ask at most 7000 MiB and 40 % of the cores a card", 7000, cores=40,
        effort=(1 - 7000 / 9000) + (1 - 40 / 50),
    )  # fmt: skip


def test_a_card_of_another_type_is_named() -> None:
    found = explain(pod(app(want(use_types=("H100",)))), node(used(model="NVIDIA-L40S")))
    assert found.fixes[0] == Fix(Change.OTHER_TYPE, "accept cards of type NVIDIA-L40S", model="NVIDIA-L40S", effort=0.5)


def test_the_nearest_fix_gives_up_least_and_a_neighbour_is_last() -> None:
    neighbour = Holder(PodRef("ns", "big", PodUid("big")), (Charge("d0", 1, 2000, 0),), 0)
    found = explain(pod(app(want(8000))), node(used(mem=2000, slots=1), used("d1", cordoned=True)), [neighbour])
    assert [fix.change for fix in found.fixes] == [Change.LESS_MEMORY, Change.UNCORDON, Change.MOVE_POD]


def test_the_documented_nodes_have_the_documented_scores_with_their_sums() -> None:
    """Row 6.6."""
    own = replace(make.card(), slots=4, mem_mib=32768, core_percent=400)
    first, second = node(CardState(own, 3, 20480, 240)), node(CardState(own, 2, 8192, 120))
    ask = pod(app(want(1000)))
    assert (explain(ask, first).score, explain(ask, second).score) == (19.75, 10.5)
    assert explain(ask, first).formula == "10 x (3/4 slots + 240/400 cores + 20480/32768 MiB)"


def test_the_documented_cards_have_the_documented_scores_with_their_sums() -> None:
    """Row 6.7."""
    found = explain(pod(app(want(1000, cores=20))), node(used("d0", 2, 2000, 10), used("d1", 6, 6000, 70)))
    assert [round(card.score or 0, 9) for card in found.cards] == [9.75, 24.75]
    assert found.cards[0].formula == "10 x ((1+2)/10 slots + (20+10)/100 cores + (1000+2000)/8000 MiB)"


def test_the_state_is_untouched() -> None:
    state = node(used(cordoned=True))
    before: NodeState = replace(state)
    explain(pod(app(want())), state)
    assert state == before


def test_the_nearest_change_comes_first_whatever_was_found_first() -> None:
    state = node(used("d0", model="NVIDIA-H100", mem=7500, slots=1), used("d1", model="NVIDIA-L40S"))
    found = explain(pod(app(want(8000, use_types=("H100",)))), state)
    assert [(fix.change, fix.effort) for fix in found.fixes] == [(Change.OTHER_TYPE, 0.5), (Change.LESS_MEMORY, 0.9375)]


def test_a_whole_card_that_somebody_is_on_may_be_asked_for_almost_whole() -> None:
    found = explain(pod(app(want(9000, cores=100))), node(used("d0", slots=1, mem=6000)))
    assert found.fixes[0] == Fix(
        Change.LESS_OF_BOTH, "ask at most 2000 MiB and 99 % of the cores a card", 2000, cores=99,
        effort=(1 - 2000 / 9000) + (1 - 99 / 100),
    )  # fmt: skip


def test_accepting_a_type_drops_only_the_rule_against_it() -> None:
    ask = pod(app(want(1000, nouse_types=("l40s", "V100"))))
    found = explain(ask, node(used(model="NVIDIA-L40S")))
    assert found.fixes[0].change is Change.OTHER_TYPE
    (rules,) = {one.rules for container in applied(found.fixes[0], ask).containers for one in container.cards}
    assert rules == make.want(nouse_types=("V100",)).rules
    both = pod(app(want(1000, use_types=("V100",))))
    (rules,) = {one.rules for one in applied(replace(found.fixes[0]), both).containers[0].cards}
    assert rules == make.want(use_types=("V100", "NVIDIA-L40S")).rules


@pytest.mark.parametrize(
    ("charges", "share"),
    [
        ((Charge("d0", 1, 2000, 0),), 0.25),
        ((Charge("d0", 1, 800, 40),), 0.4),
        ((Charge("d0", 1, 800, 40), Charge("d1", 1, 6000, 0)), 0.75),
        ((Charge("d0", 3, 16000, 0),), 1.0),
        ((Charge("gone", 1, 8000, 100),), 0.0),
    ],
)
def test_a_pod_costs_the_largest_share_of_a_card_that_it_holds(charges: tuple[Charge, ...], share: float) -> None:
    state = node(used("d0", slots=10), used("d1", slots=10))
    assert share_of(charges, state) == pytest.approx(share)
    bare = node(used("d0", mem_mib=0, core_percent=0), used("d1"))
    assert share_of((Charge("d0", 1, 5, 5),), bare) == 0


def test_every_kind_of_change_is_told_in_its_own_words() -> None:
    percent = explain(pod(app(want(percent=80))), node(used(mem=4000)))
    assert percent.fixes[0] == Fix(Change.LESS_MEMORY, "ask at most 50 % of a card's memory", 50, effort=1 - 50 / 80)
    cores = explain(pod(app(want(cores=80))), node(used(cores=50)))
    assert cores.fixes[0] == Fix(Change.LESS_CORES, "ask at most 50 % of a card's cores", 50, effort=1 - 50 / 80)
    cards = explain(pod(app(want(cards=3))), node(used("d0"), used("d1", mem=8000)))
    assert cards.fixes[0] == Fix(Change.FEWER_CARDS, "ask at most 1 card", 1, effort=1 - 1 / 3)
    more = explain(pod(app(want(cards=3))), node(used("d0"), used("d1"), used("d2", mem=8000)))
    assert more.fixes[0] == Fix(Change.FEWER_CARDS, "ask at most 2 cards", 2, effort=1 - 2 / 3)
    both = explain(pod(app(want(percent=80, cores=50))), node(used("d0", 1, 6400, 80)))
    assert both.fixes[0] == Fix(
        Change.LESS_OF_BOTH, "ask at most 20 % of its memory and 20 % of the cores a card", 20, cores=20,
        effort=(1 - 20 / 80) + (1 - 20 / 50),
    )  # fmt: skip
    numa = explain(pod(app(want(cards=2, numa_bind=True))), node(used("d0", numa=0), used("d1", numa=1)))
    assert Fix(Change.ANY_NUMA, "drop the NUMA binding", effort=0.5) in numa.fixes
    rules = explain(pod(app(want(use_ids=("zz",)))), node(used()))
    assert rules.fixes == (Fix(Change.NO_RULES, "drop the rules on card types, uuids and modes", effort=0.75),)


def test_a_verdict_says_what_was_needed_and_what_there_was() -> None:
    state = node(
        used("d0", slots=10), used("d1", slots=1, mem=7500), used("d2", slots=1, cores=80), used("d3", healthy=False)
    )
    found = explain(pod(app(want(1000, cores=30))), state)
    assert [(one.card, one.reason, one.needed, one.had) for one in found.cards] == [
        ("d0", Reason.SLOTS_EXHAUSTED, 1, 0),
        ("d1", Reason.INSUFFICIENT_MEMORY, 1000, 500),
        ("d2", Reason.INSUFFICIENT_CORE, 30, 20),
        ("d3", Reason.NOT_HEALTHY, None, None),
    ]


def test_weights_stand_in_the_sum() -> None:
    asked = pod(app(want(1000, cores=20)), weights=Weights(slot=1, core=0, memory=3))
    (card,) = explain(asked, node(used("d0", 2, 2000, 10))).cards
    assert card.formula == "10 x ((1+2)/10 slots + 0 x (20+10)/100 cores + 3 x (1000+2000)/8000 MiB)"
    assert card.score == pytest.approx(10 * (3 / 10 + 3 * 3000 / 8000))
