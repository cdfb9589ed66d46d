"""Of all ways to put instances on a card the best by every count, ties included; and each limit of a refusal."""

from collections.abc import Sequence
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings

from hami.model.ask import CardAsk
from hami.model.card import Instance, MigProfile
from hami.model.refusal import Reason
from hami.plan.exact import mig
from hami.plan.snapshot import CardState

from . import builders as make
from .builders import node, want
from .migs import A100, brute, mig_card, one, profile, refusal

WIDE = profile("2g.20gb", 19900, 29, 4, 0, 4, slices=2)
"""As much memory as 3g.20gb but for a little, and fewer cores."""
Worth = tuple[int, tuple[int, ...], tuple[int, ...]]


@cache
def most(profile: MigProfile, busy: frozenset[int]) -> int:
    """How many instances of a profile still have places beside each other."""
    free = [
        slices
        for place in profile.placements
        if not busy & (slices := frozenset(range(place.start, place.start + place.size)))
    ]
    return max((1 + most(profile, busy | slices) for slices in free), default=0)


def worth(
    profiles: Sequence[MigProfile], held: Sequence[Instance], needs: Sequence[mig.Need], way: Sequence[Instance]
) -> Worth:
    """What is compared, the lowest first: the memory of the profiles taken, how many of each profile still go beside
    them, the largest first, and HAMi's order of places, the largest need first."""
    by_name = {each.name: each for each in profiles}
    busy = frozenset(bit for each in (*held, *way) for bit in range(each.start, each.start + each.size))
    largest_first = sorted(profiles, key=lambda each: (each.mem_mib, each.slices), reverse=True)
    by_need = sorted(zip(needs, way, strict=True), key=lambda pair: pair[0], reverse=True)
    order = tuple(-each.start if each.profile[:2] in ("1g", "3g") else each.start for _, each in by_need)
    memory = sum(by_name[each.profile].mem_mib for each in way)
    return memory, tuple(-most(each, busy) for each in largest_first), order


def random_case(random: Random) -> tuple[tuple[MigProfile, ...], tuple[Instance, ...], tuple[mig.Need, ...]]:
    profiles = tuple(random.sample((*A100, WIDE), random.randint(2, 5)))
    held: tuple[Instance, ...] = ()
    for each in random.choices(A100[:3], k=random.randrange(4)):
        place = random.choice(each.placements)
        if not mig.mask(held) & mig.bits(place.start, place.size):
            held = (*held, Instance(each.name, place.start, place.size))
    sizes = random.choice(((1000, 4864), (4864, 9000), (1000, 9000, 15000, 19950)))
    needs = tuple(
        mig.Need(random.choice(sizes), random.choice((0, 0, 0, 15, 30))) for _ in range(random.choice((1, 2, 2, 3, 3)))
    )
    return profiles, held, needs


@settings(max_examples=300, deadline=None)
@given(make.SEEDS)
def test_no_way_is_better_by_any_count_and_ties_go_by_hamis_order(seed: int) -> None:
    profiles, held, needs = random_case(Random(seed))
    ways = brute(profiles, mig.mask(held), needs)
    found = mig.pack(profiles, held, needs)
    assert (found is None) == (not ways)
    if found is not None:
        assert worth(profiles, held, needs, found) == min(worth(profiles, held, needs, way) for way in ways)


@pytest.mark.parametrize(
    ("needs", "held", "found"),
    [
        ((4000, 9000), (), [("1g.5gb", 6), ("2g.10gb", 4)]),  # 3g.20gb goes beside them in any case: at 0
        ((9000, 4000), (), [("2g.10gb", 4), ("1g.5gb", 6)]),  # each need has its own, whatever the order
        ((4000, 4000, 9000), (("3g.20gb", 4),), [("1g.5gb", 3), ("1g.5gb", 2), ("2g.10gb", 0)]),
        ((9000, 19000), (("1g.5gb", 0),), [("2g.10gb", 2), ("3g.20gb", 4)]),
        ((4000, 4000), (("2g.10gb", 0), ("2g.10gb", 4)), [("1g.5gb", 6), ("1g.5gb", 3)]),
        ((4000,), (("1g.5gb", 0), ("1g.5gb", 1), ("1g.5gb", 2), ("1g.5gb", 3), ("2g.10gb", 4)), [("1g.5gb", 6)]),
        ((19000, 19000, 4000), (), None),
    ],
)
def test_each_need_gets_its_place_in_the_order_asked(
    needs: tuple[int, ...], held: tuple[tuple[str, int], ...], found: list[tuple[str, int]] | None
) -> None:
    sizes = {each.name: each.placements[0].size for each in A100}
    own = tuple(Instance(name, start, sizes[name]) for name, start in held)
    packed = mig.pack(A100, own, tuple(mig.Need(mem, 0) for mem in needs))
    assert (packed and [(each.profile, each.start) for each in packed]) == found


@pytest.mark.parametrize(
    ("slots", "held", "asked", "counts"),
    [(7, 0, 3, [1, 2, 3]), (7, 0, 9, [1, 2, 3]), (2, 0, 3, [1, 2]), (2, 1, 3, [1]), (7, 1, 1, [1]), (7, 0, 0, [])],
)
def test_units_are_added_as_long_as_they_are_asked_for_and_have_slots_and_places(
    slots: int, held: int, asked: int, counts: list[int]
) -> None:
    card, own = mig_card(slots=slots), (Instance("1g.5gb", 6, 1),) * held
    found = list(mig.units(card, own, (), mig.Need(9000, 0), asked))
    assert [len(each) for each in found] == counts
    pending = list(mig.units(card, own, (mig.Need(4000, 0),), mig.Need(9000, 0), asked))
    assert [len(each) - 1 for each in pending] == [count for count in counts if held + 1 + count <= slots]


FULL = tuple(Instance("1g.5gb", start, 1) for start in range(7))


@pytest.mark.parametrize(
    ("state", "ask", "said"),
    [
        (CardState(mig_card()), want(40192), None),  # just fits
        (CardState(mig_card()), want(40193), (Reason.INSUFFICIENT_MEMORY, 40193, 40192)),
        (CardState(mig_card()), want(40192, cores=100), None),
        (CardState(mig_card()), want(40192, cores=101), (Reason.INSUFFICIENT_CORE, 101, 100)),
        (CardState(mig_card(profiles=A100[:2])), want(9856, cores=30), (Reason.INSUFFICIENT_CORE, 30, 29)),
        (CardState(mig_card(profiles=())), want(0, cores=1), (Reason.INSUFFICIENT_CORE, 1, 0)),
        (CardState(mig_card(profiles=())), want(1), (Reason.INSUFFICIENT_MEMORY, 1, 0)),
        (CardState(mig_card(slots=9), 7, 1, 1, instances=FULL), want(1), (Reason.MIG_INFEASIBLE, 1, 0)),
        (CardState(mig_card(slots=7), 7, 1, 1, instances=FULL), want(1), (Reason.SLOTS_EXHAUSTED, 1, 0)),
        (CardState(mig_card(), 1, 1, 1, instances=FULL[:1]), want(40000), (Reason.MIG_INFEASIBLE, 40000, 19968)),
    ],
)
def test_a_refusal_says_what_the_card_has_at_most(
    state: CardState, ask: CardAsk, said: tuple[Reason, int, int] | None
) -> None:
    found = mig.refuse(ask, state, idle_only=False)
    assert (found and (found.reason, found.needed, found.had)) == said


def test_of_cards_that_come_equally_near_the_first_is_told() -> None:
    def text(*states: CardState) -> str:
        return mig.explain(want(40000), states)

    half = [CardState(mig_card(name), 1, 1, 1, instances=FULL[:1]) for name in ("d0", "d1")]
    nothing = [CardState(mig_card(name), 7, 1, 1, instances=FULL) for name in ("d2", "d3")]
    words = "no place for another 7g.40gb (40000 MiB) on card {} beside {}; {}"
    still, none = "the largest that still has one is 3g.20gb", "nothing has one"
    all_seven = ", ".join(f"1g.5gb at {start}" for start in range(7))
    assert text(*half) == words.format("d0", "1g.5gb at 0", still)
    assert text(*nothing, *half) == words.format("d0", "1g.5gb at 0", still)
    assert text(*nothing) == text(nothing[0]) == words.format("d2", all_seven, none)
    assert text(CardState(mig_card("d4"))) == words.format(
        "d4", "no other", "the largest that still has one is 7g.40gb"
    )
    assert text(CardState(mig_card("d5", profiles=A100[:1]))) == "", "no profile serves at all"


def test_more_units_than_an_idle_card_has_places_for_are_refused_beside_no_other() -> None:
    found = refusal(node(CardState(mig_card())), one(19000, cards=3))
    assert "on card d0 beside no other; " in found.text
