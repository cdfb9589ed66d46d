"""Pods of several containers: groups of two families, wants of other rules, cards of two modes."""

from random import Random

import pytest
from msgspec.structs import replace

from hami.ledger.index import Index
from hami.model.ask import Ask
from hami.model.card import Instance
from hami.model.plan import Plan
from hami.model.quota import Budget, Measure, Quantum
from hami.model.refusal import Reason, Refusal
from hami.plan.choose import choose
from hami.plan.exact.fit import fit
from hami.plan.snapshot import CardState, NodeState

from . import builders as make
from . import oracle
from .builders import NVIDIA, OTHER, app, init, node, pod, sidecar, used, want
from .migs import mig_card


def feasible(ask: Ask, *nodes: NodeState) -> list[str]:
    """What the columns and the exact look say, which is the same."""
    index = Index()
    for state in nodes:
        index.put(state)
    found = choose(ask, index).feasible
    assert found == [state.name for state in nodes if isinstance(fit(ask, state), Plan)]
    return found


def many(random: Random) -> Ask:
    """Six to fourteen containers of one card each, some with an init container or cards of another family beside."""
    cores = random.choice(((0,), (0, 10), (10, 30), (0, 100)))
    sizes = random.sample(range(9), random.choice((1, 2, 4)))
    wanted = [want(random.choice(sizes), cores=random.choice(cores)) for _ in range(random.randint(6, 14))]
    first = [init(want(random.choice((1, 9)), cores=random.choice(cores)))] if random.random() < 0.3 else []
    other = [app(want(3, cards=random.choice((1, 2)), family=OTHER))] if random.random() < 0.3 else []
    return pod(*first, *other, *map(app, wanted), cards=random.choice((("spread",), ("binpack",), ("mutex",))))


def some_node(random: Random, name: str) -> NodeState:
    cards = []
    for number in range(random.randint(2, 6)):
        taken = random.choice(((0, 0, 0), (0, 0, 0), (1, 3, 0), (1, 3, 50), (7, 2, 0)))
        own = {"mem_mib": random.choice((9, 15, 24)), "core_percent": random.choice((100, 100, 0))}
        cards.append(used(f"{name}{number}", *taken, **own))
    return node(*cards, used(f"{name}x0", family=OTHER), name=name)


def test_of_many_containers_columns_say_of_every_node_what_an_exact_look_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 24)  # the bound is met often
    fits = 0
    for seed in range(400):
        random = Random(seed)
        fits += len(feasible(many(random), *(some_node(random, f"n{number}") for number in range(6))))
    assert 300 < fits < 2100


def test_who_finds_no_card_by_trying_finds_one_when_the_largest_takes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread gives the small ones the emptiest card each, so that none is left whole for the large one."""
    cards = [used("d0", mem_mib=11), used("d1", mem_mib=9)]
    ask = pod(init(want(10)), *(app(want(1)) for _ in range(9)), app(want(11)))
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 3)
    plan = fit(ask, node(*cards))
    assert isinstance(plan, Plan)
    assert [[one.card for one in container] for container in plan.containers] == [["d0"], *[["d1"]] * 9, ["d0"]]
    assert isinstance(fit(replace(ask, card_policy=("mutex",)), node(*cards)), Refusal)
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 2**20)
    few = pod(*(app(want(6)) for _ in range(2)), app(want(7)), cards=("binpack",))
    refusal = fit(few, node(*cards))
    assert isinstance(refusal, Refusal), "what was tried in full needs no other way"


@pytest.mark.parametrize("bound", [1, 3, 24])
def test_a_plan_that_was_found_at_the_bound_obeys_every_rule(bound: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where init containers run beside the sidecars before them."""
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", bound)
    found = 0
    for seed in range(1000):
        random = Random(seed)
        kinds = [random.choice((init, sidecar)) for _ in range(random.randint(1, 4))] + [app] * random.randint(1, 3)
        ask = pod(*(one(want(random.randint(1, 7), cores=random.choice((0, 0, 30)))) for one in kinds))
        small = make.random_small_node(random, "n")
        plan = fit(ask, small)
        if isinstance(plan, Plan):
            oracle.judge(ask, small, plan)
            found += 1
    assert found > 300


def test_an_init_container_does_not_take_what_a_sidecar_before_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 1)
    one = pod(sidecar(want(6)), init(want(6)), app(want(1)))
    assert isinstance(fit(one, node(used("d0", mem_mib=10))), Refusal)
    plan = fit(one, node(used("d0", mem_mib=10), used("d1", mem_mib=10)))
    assert isinstance(plan, Plan)
    assert len({part.card for slices in plan.containers[:2] for part in slices}) == 2
    first = pod(init(want(6)), sidecar(want(6)), app(want(1)))
    assert isinstance(fit(first, node(used("d0", mem_mib=10))), Plan), "what comes after it is not there yet"


def test_a_second_family_that_does_not_fit_together_refuses_the_node_too() -> None:
    def of(name: str, spare: int) -> NodeState:
        own = [used(f"{name}{place}") for place in range(2)]
        return node(*own, *(used(f"{name}x{place}", family=OTHER) for place in range(spare)), name=name)

    both = (want(5000), want(5000, family=OTHER))
    ask = pod(app(*both), app(*both))
    assert feasible(ask, of("good", 2), of("lacking", 1), of("better", 3)) == ["good", "better"]
    assert feasible(ask, of("bad", 1)) == []


def test_containers_whose_rules_differ_do_not_count_against_each_other() -> None:
    cards = [used(f"d{place}", model=model) for place, model in enumerate(("A100", "A100", "V100", "V100"))]
    by_type = [app(want(5000, cards=2, use_types=(model,))) for model in ("A100", "V100")]
    assert feasible(pod(*by_type), node(*cards), node(*cards[:3], name="few")) == ["node"]


def test_who_asks_no_memory_has_seats_on_cards_that_are_full() -> None:
    """Two of 60 % and two of 50 % on four cards without free memory, two of which have half of their time left."""
    cards = [used(f"d{place}", 1, 8000, busy) for place, busy in enumerate((0, 0, 50, 50))]
    ask = pod(app(want(0, cores=60, cards=2)), app(want(0, cores=50, cards=2)))
    assert feasible(ask, node(*cards), node(*cards[:3], name="few")) == ["node"]


def test_on_cards_of_two_modes_instances_count_beside_cards() -> None:
    state = node(CardState(mig_card("d0")), used("d1"))
    assert isinstance(fit(pod(app(want(8000, cards=4))), state), Plan)
    refusal = fit(pod(app(want(8000, cards=5))), state)
    assert isinstance(refusal, Refusal)
    assert refusal.text.endswith(
        ": asks 5 cards, 4 of 2 fit; no place for another 2g.10gb (8000 MiB) on card d0 beside no other; "
        "the largest that still has one is 7g.40gb"
    )
    assert isinstance(fit(pod(app(want(8000, cards=2))), node(CardState(mig_card("d0")), used("d1", 10))), Plan)


def test_what_lacks_of_a_card_that_has_nothing_left_is_all_of_it() -> None:
    refusal = fit(pod(app(want(1000))), node(used("d0", 1, 8000)))
    assert isinstance(refusal, Refusal)
    assert refusal.text.endswith("missing 1000 MiB on the best card")


def test_a_container_that_meets_an_instance_of_its_own_pod_is_told_what_is_left_beside_it() -> None:
    refusal = fit(pod(app(want(19_000)), app(want(40_000))), node(CardState(mig_card("d0"))))
    assert isinstance(refusal, Refusal)
    assert [(one.reason, one.needed, one.had) for one in refusal.cards] == [(Reason.MIG_INFEASIBLE, 40_000, 19_968)]


def test_instances_on_two_numa_nodes_are_no_lack_of_places() -> None:
    state = node(CardState(mig_card("d0", numa=0)), CardState(mig_card("d1", numa=1)))
    refusal = fit(pod(app(want(40_000, cards=2, numa_bind=True))), state)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is not Reason.MIG_INFEASIBLE
    assert "CardMigTopologyInfeasible" not in refusal.text


def test_mutex_takes_no_card_with_a_single_instance_of_another() -> None:
    held = CardState(mig_card("d0"), 1, 4864, 15, instances=(Instance("1g.5gb", 0, 1),))
    ask = pod(app(want(4000)), cards=("mutex", "binpack"))
    assert isinstance(fit(ask, node(held)), Refusal)
    plan = fit(ask, node(held, CardState(mig_card("d1"))))
    assert isinstance(plan, Plan)
    assert [one.card for one in plan.containers[0]] == ["d1"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_init_container_takes_another_card_where_its_first_choice_costs_too_much(order: tuple[int, int]) -> None:
    """Half a card's memory is 4000 or 2000 MiB; the namespace may spend 3000."""
    ask = replace(
        pod(init(want(percent=50)), app(want(1)), cards=("binpack",)),
        budgets=(Budget("ns", Quantum("nvidia.com/gpumem", NVIDIA, Measure.MEMORY), 3000, 0),),
    )
    cards = [used("d0", 5), used("d1", mem_mib=4000)]
    plan = fit(ask, node(*(cards[place] for place in order)))
    assert isinstance(plan, Plan)
    assert [one.mem_mib for one in plan.containers[0]] == [2000]


@pytest.mark.parametrize("small", [0, 1, 2])
def test_what_was_tried_in_vain_stands_in_nobodys_way(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last container needs d0 with a percent left. In turn the others fill d0, largest first they do so too, and
    only then every way is tried: for up to five containers, whichever cards each of them may have."""
    first = [app(want(1, use_ids=("d0",)))] * small
    others = app(want(2000, cores=60)), app(want(2000, cores=40)), app(want(4000, use_ids=("d0",)))
    asked = pod(*first, *others, cards=("numa",))
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", small + 2)
    state = node(used("d0", mem_mib=8002), used("d1", mem_mib=5000, numa=1))
    plan = fit(asked, state)
    assert isinstance(plan, Plan)
    oracle.judge(asked, state, plan)


def test_a_container_of_two_cards_is_never_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.plan.exact.search.CHOICES", 1)
    both = pod(app(want(5000, cards=2)), app(want(5000)))
    assert isinstance(fit(both, node(used("d0"), used("d1"))), Refusal)
