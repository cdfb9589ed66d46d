"""Gangs whose members ask several cards each: the order in which cards are taken decides how many fit."""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import combinations
from random import Random

import pytest
from msgspec.structs import replace
from tests.unit.plan.builders import app, card, want
from tests.unit.plan.builders import pod as built

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.ask import Ask, Gang
from hami.model.ids import NodeName
from hami.plan.choose import Decision
from hami.scheduler.held.gangs import Gangs, otherwise


def exists(cards: Iterable[int], each: int, mib: int) -> int:
    """How many members of `each` cards with `mib` there is a way for on one node, by trying every one."""

    @cache
    def most(left: tuple[int, ...]) -> int:
        ways = combinations(range(len(left)), each)
        fits = [chosen for chosen in ways if all(left[one] >= mib for one in chosen)]
        after = ({one: left[one] - mib * (one in chosen) for one in range(len(left))} for chosen in fits)
        return max((1 + most(tuple(sorted(one.values()))) for one in after), default=0)

    return most(tuple(sorted(cards)))


def several(least: int, each: int, mib: int, policy: str) -> list[Ask]:
    """Members of one gang, each of several cards."""
    members = (
        built(app(want(mib, cards=each)), uid=f"p{number}", cards=tuple(policy.split(","))) for number in range(least)
    )
    return [replace(one, gang=Gang("g", least)) for one in members]


def tried(asks: list[Ask], *nodes: Sequence[int]) -> tuple[Gangs, Ledger, Decision]:
    """What a gang gets on nodes with cards of so many MiB."""
    ledger = Ledger()
    names = [NodeName(f"n{number}") for number in range(len(nodes))]
    for name, sizes in zip(names, nodes, strict=True):
        cards = tuple(card(f"{name}d{index}", index=index, mem_mib=mib) for index, mib in enumerate(sizes))
        ledger.set_node(NodeRecord(name, cards))
    gangs = Gangs(ledger, lambda: 0.0, 60.0, 20.0)
    for one in asks:
        gangs.see(one)
    assert asks[0].gang is not None
    return gangs, ledger, gangs.decide(asks[0], asks[0].gang, names)


def test_a_gang_for_which_full_cards_first_leave_too_few_takes_the_emptiest_first() -> None:
    """Two cards each: the two small ones would go to the first, and the large one is one card only."""
    asks = several(2, 2, 1000, "binpack")
    _, ledger, decision = tried(asks, [1000, 1000, 2000])
    assert decision.plan is not None
    assert {hold.plan.pod.uid for hold in ledger.reservations()} == {"p0", "p1"}
    assert all(hold.ask in asks for hold in ledger.reservations()), "what it asked stays what it asked"
    assert ledger.recount() == []


def test_a_gang_that_fits_by_its_own_policy_gets_it_so() -> None:
    _, ledger, _ = tried(several(1, 2, 1000, "binpack"), [1000, 2000, 1000])
    (hold,) = ledger.reservations()
    assert {one.card for one in hold.plan.charges} == {"n0d0", "n0d2"}


def test_a_gang_for_which_there_is_no_way_holds_nothing_and_says_how_many_fit() -> None:
    _, ledger, decision = tried(several(3, 2, 1000, "binpack"), [1000, 1000, 2000])
    assert (decision.plan, list(ledger.reservations())) == (None, [])
    assert "gang g: 2 of 3 fit" in str(decision.refusals["n0"])


@pytest.mark.parametrize(
    ("policy", "other"),
    [
        ("binpack", ("spread",)),
        ("spread", ("binpack",)),
        ("mutex,binpack,numa", ("mutex", "spread", "numa")),
        ("topology-aware", ("topology-aware", "binpack")),
    ],
)
def test_only_whether_full_cards_come_first_is_tried_otherwise(policy: str, other: tuple[str, ...]) -> None:
    (one,) = several(1, 2, 1000, policy)
    assert otherwise(one) == replace(one, card_policy=other)


def test_of_single_and_of_whole_cards_nothing_is_tried_otherwise() -> None:
    for asked in (want(1000), want(1000, cores=100, cards=2), want(percent=100, cards=2)):
        one = built(app(asked), cards=("binpack",))
        assert otherwise(one) is one


@pytest.mark.parametrize("policy", ["binpack", "spread"])
def test_no_gang_of_random_ones_waits_where_there_is_a_way(policy: str) -> None:
    """What it cannot see, a way by neither order, is rare: none of these, 2 of 1,353 with cores and slots beside."""
    chance, found = Random(7), 0
    for _ in range(150):
        nodes = [[chance.choice((1000, 2000, 3000, 4000)) for _ in range(chance.randint(2, 5))] for _ in range(2)]
        each, mib, least = chance.randint(2, 3), chance.choice((500, 800, 1000, 1500)), chance.randint(2, 6)
        way = sum(exists(node, each, mib) for node in nodes) >= least
        _, ledger, decision = tried(several(least, each, mib, policy), *nodes)
        assert (decision.plan is not None) is way, (nodes, each, mib, least)
        assert ledger.recount() == []
        found += way
    assert 30 < found < 140


def test_no_more_members_than_must_run_hold_slices() -> None:
    """Others of the gang come in their own turn: cards held for whom nobody asked about are kept from everybody."""
    asks = [replace(one, gang=Gang("g", 2)) for one in several(4, 2, 1000, "spread")]
    _, ledger, _ = tried(asks, [8000, 8000])
    assert {hold.plan.pod.uid for hold in ledger.reservations()} == {"p0", "p1"}
