"""What people ask about, pods that are there and pods that are not: told by the policy `pack` as it decides, and no
lesson to it."""

from random import Random

import pytest
from msgspec.structs import replace
from tests.unit.plan.packs import SIZES, ask, bind, decided, ledger_of

from hami.ledger.cluster import Ledger
from hami.ledger.survey import survey
from hami.model.ask import NodePolicy
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.plan.exact.refuse import UNKNOWN_NODE
from hami.plan.steps import finish

NODES = (("a", 4, "A", 32_000.0), ("b", 4, "A", 16_000.0), ("c", 2, "A", 64_000.0))


def busy(seed: int = 1) -> tuple[Ledger, dict[str, float]]:
    """Some pods bound where `pack` put them, and what they leave of the hosts' CPU."""
    random, ledger = Random(seed), ledger_of(*NODES)
    cpu = {name: free for name, _, _, free in NODES}
    for number in range(8):
        one = ask(f"p{number}", random.choice(SIZES), cpu=random.choice([500, 2000]))
        bind(ledger, one, plan := decided(ledger, one))
        cpu[plan.node] -= one.cpu_milli
        ledger.set_host(plan.node, cpu[plan.node])
    return ledger, cpu


def later(ledger: Ledger) -> list[Plan | None]:
    """Where pods would go, each decided as if it were the only one."""
    return [ledger.decide(ask(f"later{place}", SIZES[place % 5], cpu=1000)).plan for place in range(20)]


def test_wondering_about_pods_that_nobody_made_changes_no_later_decision() -> None:
    (asked, _), (wondered, _) = busy(), busy()
    for number in range(60):
        finish(survey(wondered, ask(f"would-be{number}", 1000, cards=2, cpu=7000)))
    assert later(wondered) == later(asked)


def shapes(ledger: Ledger) -> list[str]:
    """What `pack` thinks pods ask, as far as it counts on an idle node."""
    worth = ledger.worth(ask("next", 1000), NodeName("a"))
    assert worth is not None
    return [seat.shape for seat in worth.seats]


def test_a_pod_that_really_asks_is_a_lesson_whoever_wondered_about_it_before() -> None:
    ledger, one = ledger_of(*NODES), ask("one", 470)
    guess = shapes(ledger)
    finish(survey(ledger, one))
    assert shapes(ledger) == guess
    ledger.decide(one)
    assert shapes(ledger) == ["1 x 470 MiB"] != guess


@pytest.mark.parametrize("seed", range(6))
def test_a_bound_pod_is_told_what_it_would_be_told_if_it_were_not_there(seed: int) -> None:
    ledger, cpu = busy(seed)
    one = ask("one", Random(seed).choice(SIZES), cpu=4000)
    plan, before = decided(ledger, one), finish(survey(ledger, one))
    bind(ledger, one, plan)
    ledger.set_host(plan.node, cpu[plan.node] - one.cpu_milli)
    bound, free = ledger.node(plan.node), ledger.worth(ask("next", 110), plan.node)
    (told,) = finish(survey(ledger, one)).nodes
    due = before.nodes[0].pack
    assert due is not None
    assert told.pack is not None
    assert (told.node, told.pack.seats, told.pack.prices) == (plan.node, due.seats, due.prices)
    assert told.pack.score == pytest.approx(due.score, abs=0.01)
    assert told.plan is not None
    assert told.plan.containers == plan.containers
    assert (ledger.node(plan.node), ledger.worth(ask("next", 110), plan.node)) == (bound, free)
    assert ledger.recount() == []


def test_a_bound_pod_of_another_policy_has_no_seats_to_be_told() -> None:
    ledger, _ = busy()
    one = replace(ask("one", 320), node_policy=NodePolicy.BINPACK)
    bind(ledger, one, decided(ledger, one))
    (told,) = finish(survey(ledger, one)).nodes
    assert told.plan is not None
    assert told.pack is None


def test_a_bound_pod_whose_node_has_gone_has_nothing_to_be_told() -> None:
    ledger, _ = busy()
    bind(ledger, one := ask("one", 320), plan := decided(ledger, one))
    ledger.drop_node(plan.node)
    found = finish(survey(ledger, one))
    assert (found.bound, found.fits, found.nodes) == (plan.node, False, ())


def test_a_pod_that_is_not_bound_or_whose_node_has_gone_is_not_fitted_again() -> None:
    ledger, _ = busy()
    bind(ledger, one := ask("one", 320), plan := decided(ledger, one))
    assert isinstance(ledger.refit(one)[0], Plan)
    assert ledger.refit(ask("other", 320)) == (UNKNOWN_NODE, None)
    ledger.drop_node(plan.node)
    assert ledger.refit(one) == (UNKNOWN_NODE, None)


def test_what_runs_when_the_scheduler_starts_is_its_first_lesson() -> None:
    before = ledger_of(*NODES)
    for number in range(3):
        bind(before, one := ask(f"p{number}", 470), decided(before, one))
    after = ledger_of(*NODES)
    for record in before.pods().values():
        after.set_pod(record)
    assert shapes(after) == ["1 x 470 MiB"]


def test_nothing_is_worth_anything_on_a_node_that_is_gone_or_to_a_pod_without_cards() -> None:
    ledger, one = ledger_of(*NODES), ask("one", 470)
    ledger.decide(one)
    assert ledger.worth(one, NodeName("a")) is not None
    assert ledger.worth(one, NodeName("gone")) is None
    assert ledger.worth(replace(one, containers=()), NodeName("a")) is None
