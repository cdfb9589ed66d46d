"""A few containers of one card each, on one node: whatever way there is, it is found, of each family by itself."""

from itertools import product
from random import Random

import pytest
from msgspec.structs import replace

from hami.ledger.index import Index
from hami.model.ask import Ask, CardAsk
from hami.model.ids import Family
from hami.model.plan import Plan
from hami.model.quota import Budget, Measure, Quantum
from hami.model.refusal import Reason, Refusal
from hami.plan.choose import choose
from hami.plan.exact.fit import fit
from hami.plan.exact.sharing import MOST_WANTS, shared_out
from hami.plan.snapshot import CardState, NodeState

from . import oracle
from .builders import NVIDIA, OTHER, app, init, node, pod, sidecar, used, want


@pytest.mark.parametrize("seed", range(200))
def test_a_way_is_found_whenever_there_is_one_and_each_card_holds_what_it_is_given(seed: int) -> None:
    random = Random(seed)
    wants = random.randint(1, MOST_WANTS)
    held = [
        random.sample(range(1, 1 << wants), random.randint(0, min(4, (1 << wants) - 1)))
        for _ in range(random.randint(1, 4))
    ]
    found = shared_out(held, wants)

    def served(places: tuple[int, ...]) -> list[int]:
        return [sum(1 << want for want in range(wants) if places[want] == place) for place in range(len(held))]

    def good(places: tuple[int, ...]) -> bool:
        return all(not chosen or chosen in sets for chosen, sets in zip(served(places), held, strict=True))

    assert (found is not None) == any(map(good, product(range(len(held)), repeat=wants)))
    assert found is None or good(tuple(found))


def agreed(ask: Ask, *nodes: NodeState) -> int:
    """Columns, the exact look and the slow checker say the same of each node; how many fit."""
    index = Index()
    for state in nodes:
        index.put(state)
    plans = {state.name: fit(ask, state) for state in nodes}
    fitting = [name for name, plan in plans.items() if isinstance(plan, Plan)]
    assert choose(ask, index).feasible == fitting
    assert fitting == [state.name for state in nodes if oracle.fits(ask, state)]
    for state in nodes:
        if isinstance(plan := plans[state.name], Plan):
            oracle.judge(ask, state, plan)
    return len(fitting)


def one(random: Random, family: Family = NVIDIA) -> CardAsk:
    return want(random.choice((0, 1, 2, 3, 5, 8)), cores=random.choice((0, 10, 20, 30, 60, 90)), family=family)


def cards(random: Random, most: int, family: Family = NVIDIA) -> list[CardState]:
    return [
        used(f"{family}{place}", 1, random.randint(3, 10), random.choice((5, 30, 60, 80)), mem_mib=10, family=family)
        for place in range(random.randint(2, most))
    ]


@pytest.mark.parametrize("bound", [1, 6, 256])
def test_of_up_to_five_containers_nobody_is_refused_where_there_is_a_way(
    bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few choices are tried one after the other."""
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", bound)
    fits = 0
    for seed in range(250):
        random = Random(seed)
        first = [init(one(random)) for _ in range(random.choice((0, 0, 1)))]
        kinds = [sidecar] * random.choice((0, 1)) + [app] * random.randint(2, 4)
        ask = pod(
            *first, *(kind(one(random)) for kind in kinds), cards=random.choice((("spread",), ("binpack",), ("mutex",)))
        )
        fits += agreed(ask, *(node(*cards(random, 5), name=f"n{place}") for place in range(4)))
    assert 100 < fits < 900


@pytest.mark.parametrize("bound", [1, 6, 256])
def test_two_families_in_one_pod_are_as_two_pods_of_one_family(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", bound)
    fits = 0
    for seed in range(250):
        random = Random(seed)
        containers = [app(one(random, family)) for family in (NVIDIA, OTHER) for _ in range(random.randint(1, 3))]
        containers += [app(one(random), one(random, OTHER))] * random.choice((0, 0, 1))
        random.shuffle(containers)
        nodes = [node(*cards(random, 3), *cards(random, 3, OTHER), name=f"n{place}") for place in range(4)]
        fits += agreed(pod(*containers, cards=random.choice((("spread",), ("binpack",)))), *nodes)
    assert 100 < fits < 900


def test_one_family_does_not_use_up_the_choices_of_another() -> None:
    """Four small ones go anywhere; the five of the other family, spread over three cards, fit after some trying."""
    sizes = (
        (6, OTHER),
        (7, OTHER),
        (2, NVIDIA),
        (4, NVIDIA),
        (1, NVIDIA),
        (7, OTHER),
        (6, OTHER),
        (1, NVIDIA),
        (7, OTHER),
    )
    own = [used(f"a{place}", mem_mib=size) for place, size in enumerate((24, 9, 24, 9))]
    other = [used(f"b{place}", mem_mib=size, family=OTHER) for place, size in enumerate((12, 15, 12))]
    ask = pod(*(app(want(size, family=family)) for size, family in sizes))
    plan = fit(ask, node(*own, *other))
    assert isinstance(plan, Plan)
    oracle.judge(ask, node(*own, *other), plan)


def test_of_five_the_one_that_needs_much_time_and_no_memory_is_not_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest by memory, and the first in order, both take the card that only the last one can have."""
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 24)
    taken = ((6, 60), (8, 5), (8, 60), (8, 60), (7, 60), (8, 80))
    state = node(*(used(f"d{place}", 1, mem, cores, mem_mib=10) for place, (mem, cores) in enumerate(taken)))
    wanted = ((0, 30), (0, 30), (2, 0), (1, 10), (0, 90))
    assert agreed(pod(*(app(want(mem, cores=cores)) for mem, cores in wanted)), state) == 1


def test_what_one_family_could_not_pay_at_first_is_not_why_another_has_no_card() -> None:
    """Half of the larger card is too dear, half of the smaller one is not; of the other family there is none."""
    budget = Budget("ns", Quantum("nvidia.com/gpumem", NVIDIA, Measure.MEMORY), 3000, 0)
    asked = replace(pod(app(want(percent=50)), app(want(1, family=OTHER)), cards=("binpack",)), budgets=(budget,))
    refusal = fit(asked, node(used("d0", 5), used("d1", mem_mib=4000)))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NO_SUCH_FAMILY


def test_of_more_than_five_not_every_way_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each more would double the sets of every card."""
    asked: list[int] = []
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 1)
    monkeypatch.setattr("hami.plan.exact.search.shared_out", lambda _held, wants: asked.append(wants))
    for count in (MOST_WANTS, MOST_WANTS + 1):
        assert isinstance(
            fit(pod(*[app(want(3))] * count), node(used("d0", mem_mib=8), used("d1", mem_mib=8))), Refusal
        )
    assert asked == [MOST_WANTS]
