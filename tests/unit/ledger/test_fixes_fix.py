"""Every fix that is told, carried out in a cluster with everything in it: MIG, links, quotas, families, policies.

Whoever follows the advice gets his cards; the amounts told are the largest that fit.
"""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from tests.unit.plan import builders as make
from tests.unit.plan.followed import applied
from tests.unit.plan.world import World, random_ask

from hami.ledger.records import PodRecord
from hami.ledger.survey import NAMED, Survey, survey
from hami.model.ask import Ask, CardAsk
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Plan
from hami.plan.advice.changes import Cap, each, largest, with_cards, with_cores, with_memory, with_percent
from hami.plan.advice.fixes import Change, Fix
from hami.plan.steps import finish


def peopled(random: Random) -> tuple[World, dict[PodUid, Ask]]:
    """Pods are placed where the engine puts them; what each asked is known."""
    world, asks = World(random), {}
    for number in range(random.choice((2, 5, 9))):
        ask = random_ask(random, f"p{number}")
        plan = None if ask.empty else world.ledger.decide(ask).plan
        if plan is not None:
            world.ledger.set_pod(record(plan))
            asks[ask.pod.uid] = ask
    return world, asks


def record(plan: Plan) -> PodRecord:
    return PodRecord(plan.pod, plan.node, plan.containers, plan.charges)


def waiting(random: Random, world: World, asks: dict[PodUid, Ask]) -> list[tuple[Ask, Survey]]:
    """Asks that fit nowhere, explained."""
    tried = [ask for number in range(4) if not (ask := random_ask(random, f"q{number}")).empty]
    told = [(ask, finish(survey(world.ledger, ask, ask_of=lambda ref: asks.get(ref.uid)))) for ask in tried]
    return [(ask, found) for ask, found in told if not found.fits]


@settings(max_examples=60, deadline=None)
@given(make.SEEDS)
def test_whoever_does_what_a_fix_says_makes_it_fit(seed: int) -> None:
    random = Random(seed)
    world, asks = peopled(random)
    for ask, found in waiting(random, world, asks):
        assert list(found.fixes) == sorted(found.fixes)
        for fix in found.fixes:
            assert fix.node is not None
            assert done(world, asks, fix, ask), fix
            assert world.ledger.decide(ask).plan is None, "and it is as it was"


def done(world: World, asks: dict[PodUid, Ask], fix: Fix, ask: Ask) -> bool:
    """Whether the ask fits on the node named once the fix is carried out; all is taken back."""
    ledger, node = world.ledger, fix.node
    assert node is not None
    if fix.change is Change.UNCORDON:
        own = next(one for one in world.records if one.name == node)
        ledger.set_node(replace(own, cordoned=own.cordoned - {fix.card}))  # type: ignore[arg-type]
        fits = isinstance(ledger.fit(ask, node), Plan)
        ledger.set_node(own)
        return fits
    if fix.pod is not None:
        old = ledger.pod(fix.pod.uid)
        assert old is not None
        ledger.drop_pod(fix.pod.uid)
        if fix.change is Change.MOVE_POD:
            target = NodeName(fix.text.rpartition(" to ")[2])
            there = ledger.fit(asks[fix.pod.uid], target)
            assert isinstance(there, Plan), "it has a place"
            assert target != node
            ledger.set_pod(record(there))
        fits = isinstance(ledger.fit(ask, node), Plan)
        ledger.set_pod(old)
        return fits
    changed = applied(fix, ask)
    return isinstance(ledger.fit(changed, node), Plan) and ledger.decide(changed, asked=False).plan is not None


@pytest.mark.parametrize(
    ("change", "mib", "cap", "amount"),
    [
        (Change.LESS_MEMORY, True, with_memory, lambda one: one.mem_mib or 0),
        (Change.LESS_MEMORY, False, with_percent, lambda one: one.mem_percent or 0),
        (Change.LESS_CORES, False, with_cores, lambda one: one.core_percent),
        (Change.FEWER_CARDS, False, with_cards, lambda one: one.cards),
    ],
)
@settings(max_examples=25, deadline=None)
@given(make.SEEDS)
def test_the_amount_told_is_the_most_that_fits_anywhere(
    change: Change, mib: bool, cap: Cap, amount: Callable[[CardAsk], int], seed: int
) -> None:
    random = Random(seed)
    world, asks = peopled(random)
    for ask, found in waiting(random, world, asks):
        told = [fix.value for fix in found.fixes if fix.change is change and ("MiB" in fix.text) == mib]
        smaller = range(1, largest(ask, amount))
        fits = [most for most in smaller if world.ledger.decide(capped(ask, cap, most), asked=False).plan is not None]
        assert told[:1] == ([max(fits)] if fits else []) or (not told and len(found.fixes) == NAMED)


def capped(ask: Ask, cap: Cap, most: int) -> Ask:
    return each(ask, lambda one: cap(one, most))
