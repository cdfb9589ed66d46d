"""The engine against a slow checker that tries everything."""

from random import Random

from hypothesis import event, given, settings
from msgspec.structs import replace

from hami.model.ask import Ask, NodePolicy
from hami.model.plan import Plan
from hami.plan.choose import choose
from hami.plan.exact import score
from hami.plan.exact.fit import fit

from . import builders as make
from . import oracle
from .builders import less_of, table


@settings(max_examples=400, deadline=None)
@given(make.SEEDS)
def test_a_plan_obeys_every_rule_and_is_found_whenever_there_is_one(seed: int) -> None:
    random = Random(seed)
    ask, node = make.random_ask(random), make.random_node(random)
    result = fit(ask, node)
    event(type(result).__name__)
    assert isinstance(result, Plan) == oracle.fits(ask, node)
    if isinstance(result, Plan):
        oracle.judge(ask, node, result)
    else:
        assert result.text


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_a_scan_over_many_nodes_says_what_an_exact_look_at_each_says(seed: int) -> None:
    random = Random(seed)
    ask = make.random_ask(random)
    states = [make.random_node(random, f"n{number}") for number in range(random.randrange(9))]
    random.shuffle(states)
    names = [*(state.name for state in states), "stranger"]
    decision = choose(ask, table(states), names)
    if ask.empty:
        assert decision.feasible == names
        return
    exact = {state.name: fit(ask, state) for state in states}
    assert decision.feasible == [name for name, result in exact.items() if isinstance(result, Plan)]
    assert decision.refusals["stranger"].text == "node unregistered"
    assert {name: one for name, one in decision.refusals.items() if name != "stranger"} == {
        name: replace(result, cards=()) for name, result in exact.items() if not isinstance(result, Plan)
    }
    plans = [result for result in exact.values() if isinstance(result, Plan)]
    if ask.node_policy is NodePolicy.PACK:  # its order has tests of its own (test_pack.py)
        assert (decision.plan is None) == (not plans)
        assert decision.plan is None or decision.plan.node in decision.feasible
    else:
        assert decision.plan == min(plans, key=lambda plan: (_place(plan, ask), plan.node), default=None)


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_a_few_names_of_many_are_decided_as_all_are(seed: int) -> None:
    random = Random(seed)
    ask = make.random_ask(random)
    states = [make.random_node(random, f"n{number:02}") for number in range(30)]
    every = choose(ask, table(states))
    some = random.sample([state.name for state in states], 5)
    few = choose(ask, table(states), [*some, "stranger"])
    assert few.feasible == [name for name in [*some, "stranger"] if name in every.feasible or ask.empty]
    if not ask.empty:
        assert {name: few.refusals[name] for name in some if name in few.refusals} == {
            name: every.refusals[name] for name in some if name in every.refusals
        }
        assert "stranger" in few.refusals
        assert (few.plan is None) == (not few.feasible)
        assert few.plan is None or few.plan.node in few.feasible


@settings(max_examples=300, deadline=None)
@given(make.SEEDS)
def test_containers_that_share_cards_are_decided_exactly(seed: int) -> None:
    random = Random(seed)
    ask = make.random_crowd(random)
    states = [make.random_small_node(random, f"n{number:02}") for number in range(12)]
    decision = choose(ask, table(states))
    assert decision.feasible == [state.name for state in states if oracle.fits(ask, state)]
    assert decision.feasible == [state.name for state in states if isinstance(fit(ask, state), Plan)]


def _place(plan: Plan, ask: Ask) -> float:
    return -plan.score if ask.node_policy is NodePolicy.BINPACK else plan.score


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_asking_less_never_fits_worse(seed: int) -> None:
    random = Random(seed)
    ask, node = make.random_ask(random), make.random_node(random)
    less = replace(ask, containers=tuple(less_of(container, random) for container in ask.containers))
    if isinstance(fit(ask, node), Plan):
        assert isinstance(fit(less, node), Plan)


@given(make.SEEDS)
def test_the_same_input_gives_the_same_answer_and_the_nodes_score(seed: int) -> None:
    first, second = (fit(make.random_ask(r), make.random_node(r)) for r in (Random(seed), Random(seed)))
    assert first == second
    random = Random(seed)
    make.random_ask(random)
    if isinstance(first, Plan):
        assert first.score == score.node(make.random_node(random).cards)
