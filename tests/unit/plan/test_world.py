"""Everything at once: every plan obeys every rule, whichever policies, families, modes, links and quotas meet."""

from random import Random

from hypothesis import given, settings
from msgspec.structs import replace

from hami.ledger.survey import survey
from hami.model.ask import Ask
from hami.model.plan import Plan
from hami.model.quota import Measure
from hami.model.refusal import Reason
from hami.plan.exact.fit import fit
from hami.plan.steps import finish

from . import builders as make
from . import oracle
from .builders import less_of
from .world import QUANTA, World, judge, random_ask, worth

PODS = 8


@settings(max_examples=120, deadline=None)
@given(make.SEEDS)
def test_every_plan_obeys_every_rule_and_columns_stay_equal_to_objects(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    ledger = world.ledger
    for number in range(PODS):
        ask = random_ask(random, f"p{number}")
        decision = ledger.decide(ask)
        assert decision == ledger.decide(ask) or ask.node_policy.value == "pack", "the same again"
        if not ask.empty:
            names = sorted([*decision.feasible, *decision.refusals])
            assert names == sorted(one.name for one in world.records)
            assert (decision.plan is None) == (not decision.feasible)
        if decision.plan is None:
            continue
        assert decision.plan.node in decision.feasible
        state = ledger.node(decision.plan.node)
        assert state is not None
        judge(ask, state, decision.plan)
        ledger.reserve(ask, decision.plan, 0.0, 10.0)
        for quantum in QUANTA:
            most = world.most(quantum)
            assert most is None or ledger.quotas.use("ns", quantum) <= most
        assert ledger.recount() == []


@settings(max_examples=80, deadline=None)
@given(make.SEEDS)
def test_every_node_is_judged_as_an_exact_look_judges_it(seed: int) -> None:
    """And where there is no MIG and no quota in the way, as trying every way does."""
    random = Random(seed)
    world = World(random)
    ledger = world.ledger
    for number in range(PODS):
        ask = random_ask(random, f"p{number}")
        decision = ledger.decide(ask)
        for state in list(ledger.nodes()):
            result = ledger.fit(ask, state.name)
            if ask.empty:
                continue
            assert (state.name in decision.feasible) == isinstance(result, Plan)
            if isinstance(result, Plan):
                judge(ask, state, result)
            else:
                assert decision.refusals[state.name].text == result.text
            if not state.mig and not ledger.quotas.limited("ns"):
                assert isinstance(result, Plan) == oracle.fits(ask, state)
        if decision.plan is not None:
            ledger.reserve(ask, decision.plan, 0.0, 10.0)


@settings(max_examples=80, deadline=None)
@given(make.SEEDS)
def test_cards_that_are_chosen_by_their_links_are_the_best_linked(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    for state in list(world.ledger.nodes()):
        (container, *_) = [one for one in random_ask(random, "p").containers if one.cards] or [None]
        if container is None or state.mig or len(container.cards) > 1 or container.cards[0].cards < 2:
            continue
        ask = Ask(make.pod().pod, (container,), card_policy=("topology-aware",))
        plan = fit(ask, state)
        if isinstance(plan, Plan):
            chosen = [part.card for part in plan.containers[0]]
            assert worth(state, chosen) == max(worth(state, way[0][0]) for way in oracle.ways(ask, state))


@settings(max_examples=80, deadline=None)
@given(make.SEEDS)
def test_less_asked_never_fits_worse_anywhere(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    ask = random_ask(random, "p")
    less = replace(ask, containers=tuple(less_of(container, random) for container in ask.containers))
    fits = [one.name for one in world.records if isinstance(world.ledger.fit(ask, one.name), Plan)]
    for name in fits:
        assert isinstance(world.ledger.fit(less, name), Plan)
    assert set(world.ledger.decide(ask).feasible) <= set(world.ledger.decide(less).feasible)


@settings(max_examples=80, deadline=None)
@given(make.SEEDS)
def test_the_order_in_which_nodes_came_changes_nothing(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    shuffled = list(world.records)
    random.shuffle(shuffled)
    other = world.told(shuffled)
    for number in range(PODS):
        ask = random_ask(random, f"p{number}")
        one, two = world.ledger.decide(ask), other.decide(ask)
        assert sorted(one.feasible) == sorted(two.feasible)
        assert one.reasons() == two.reasons()
        if one.plan is None or two.plan is None:
            assert one.plan == two.plan
            continue
        assert replace(one.plan, generation=0) == replace(two.plan, generation=0)
        for ledger, decision in ((world.ledger, one), (other, two)):
            assert decision.plan is not None
            ledger.reserve(ask, decision.plan, 0.0, 10.0)


@settings(max_examples=60, deadline=None)
@given(make.SEEDS)
def test_an_explanation_tells_the_story_of_the_decision(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    ledger = world.ledger
    for number in range(4):
        ask = random_ask(random, f"p{number}")
        if ask.empty:
            continue
        decision, found = ledger.decide(ask), finish(survey(ledger, ask))
        assert (found.fits, found.feasible) == (decision.plan is not None, len(decision.feasible))
        assert found.plan == decision.plan
        assert {name: one.text for one in found.refused for name in one.names} == decision.reasons()
        for one in found.nodes:
            result = ledger.fit(ask, one.node)
            assert one.plan == (result if isinstance(result, Plan) else None)
            quota = not isinstance(result, Plan) and result.reason is Reason.QUOTA_NOT_FIT
            assert one.plan is not None or quota or one.refusal == result.text  # type: ignore[union-attr]
        if decision.plan is not None:
            ledger.reserve(ask, decision.plan, 0.0, 10.0)


def test_the_judge_notices_what_is_wrong() -> None:
    """Each fault once, so that the properties above prove something."""
    state = make.node(make.used("d0"), make.used("d1", slots=1, mem=7500, cores=20), make.used("d2", cordoned=True))
    ask = make.pod(make.app(make.want(1000, cores=30)))
    plan = fit(ask, state)
    assert isinstance(plan, Plan)
    (slices,) = plan.containers
    wrong = {
        "another card than may be given": replace(slices[0], card="d2"),
        "more than there is": replace(slices[0], card="d1"),
        "less than was asked": replace(slices[0], mem_mib=999),
        "another share of time": replace(slices[0], core_percent=29),
    }
    judge(ask, state, plan)
    for why, part in wrong.items():
        assert not _passes(ask, state, replace(plan, containers=((part,),))), why
    assert not _passes(ask, state, replace(plan, containers=((),))), "nothing"
    assert not _passes(ask, state, replace(plan, charges=())), "not charged"
    assert Measure.MEMORY in {one.measure for one in QUANTA}


def _passes(ask: Ask, state: object, plan: Plan) -> bool:
    try:
        judge(ask, state, plan)  # type: ignore[arg-type]
    except AssertionError:
        return False
    return True
