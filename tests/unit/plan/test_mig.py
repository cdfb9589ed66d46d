"""MIG: profile and place of each instance, against HAMi and against every way there is (10.4; rows 7.1 to 7.6)."""

from random import Random

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import CardAsk, PodRef
from hami.model.card import Instance
from hami.model.ids import NodeName, PodUid
from hami.model.plan import Charge, Plan, Slice
from hami.model.refusal import Reason, Refusal
from hami.plan.exact import mig
from hami.plan.exact.fit import fit
from hami.plan.exact.rules import refuse
from hami.plan.snapshot import CardState

from . import builders as make
from .builders import NVIDIA, app, card, init, node, pod, used, want
from .migs import A100, brute, empty, largest, memory, mig_card, one, placed, places, profile, refusal


def test_two_units_of_8000_mib_are_two_instances_of_one_card() -> None:  # 7.1
    plan = fit(one(8000, cards=2), empty())
    assert places(plan) == [("d0", "2g.10gb", 0), ("d0", "2g.10gb", 2)]
    assert isinstance(plan, Plan)
    assert plan.charges == (Charge("d0", 2, 19712, 58, (Instance("2g.10gb", 0, 2), Instance("2g.10gb", 2, 2))),)
    assert {part.mem_mib for part in plan.containers[0]} == {9856}, "the record has the profile's memory"


def test_hamis_sequence_gets_hamis_places() -> None:
    state, starts = empty(), []
    for mem in (20000 - 100, 9000, 4000, 4000):
        plan = fit(one(mem), state)
        starts.append(places(plan)[0][2])
        state = placed(state, one(mem))
    assert starts == [4, 0, 3, 2]
    assert state.cards[0].sound


@pytest.mark.parametrize(
    ("held", "mem"),
    [
        ([("2g.10gb", 0, 2), ("2g.10gb", 2, 2), ("2g.10gb", 4, 2)], 9000),
        ([("3g.20gb", 0, 4), ("3g.20gb", 4, 4)], 1000),
        ([("1g.5gb", 0, 1)], 40000),
    ],
)
def test_where_no_place_is_left_the_refusal_says_what_is_in_the_way(
    held: list[tuple[str, int, int]], mem: int
) -> None:  # 7.3
    instances = tuple(Instance(*each) for each in held)
    state = node(CardState(mig_card(), len(held), 1, 1, instances=instances))
    found = refusal(state, one(mem))
    assert found.reason is Reason.MIG_INFEASIBLE
    assert found.text.startswith("1/1 CardMigTopologyInfeasible: no place for another ")
    for name, start, _ in held:
        assert f"{name} at {start}" in found.text
    assert found.cards[0].needed == mem


def test_more_than_a_card_has_is_told_as_memory_and_cores() -> None:
    assert "CardInsufficientMemory: missing 9808 MiB on the best card" in refusal(empty(), one(50000)).text
    small = node(CardState(mig_card(profiles=A100[:3])))
    assert refusal(small, pod(app(want(1000, cores=60)))).reason is Reason.INSUFFICIENT_CORE


def test_too_many_units_are_counted_as_far_as_they_fit() -> None:
    found = refusal(empty(), one(8000, cards=4))
    assert found.text.startswith("1/1 CardMigTopologyInfeasible, 3/1 AllocatedCardsInsufficientRequest: ")
    assert len(places(fit(one(4000, cards=7), empty()))) == 7


def test_a_share_of_time_needs_a_profile_that_has_it() -> None:
    assert places(fit(pod(app(want(8000, cores=30))), empty()))[0][1] == "3g.20gb"
    assert places(fit(pod(app(want(8000, cores=29))), empty()))[0][1] == "2g.10gb"


def test_a_percentage_is_of_the_card_and_all_of_it_the_largest_profile() -> None:
    assert places(fit(pod(app(want(percent=20))), empty()))[0][1] == "2g.10gb"
    assert places(fit(pod(app(want(percent=100, cores=100))), empty()))[0][1] == "7g.40gb"


def test_containers_of_a_pod_have_places_of_their_own_init_containers_too() -> None:
    plan = fit(pod(init(want(19000)), app(want(19000))), empty())
    assert sorted(start for _, _, start in places(plan)) == [0, 4]
    assert isinstance(fit(pod(init(want(19000)), app(want(19000)), app(want(19000))), empty()), Refusal)


def test_an_earlier_container_gives_way_to_what_a_later_one_needs() -> None:
    plan = fit(pod(app(want(4000)), app(want(19000)), app(want(19000))), empty("d0", "d1"))
    assert len(places(plan)) == 3
    crowded = node(CardState(mig_card(), 1, 1, 1, instances=(Instance("3g.20gb", 4, 4),)))
    found = places(fit(pod(app(want(4000)), app(want(9000)), app(want(4000))), crowded))
    assert len({start for _, _, start in found}) == 3


def test_mode_words_choose_between_cards() -> None:  # 7.5
    both = node(CardState(mig_card("d0")), CardState(card("d1", mem_mib=40960)))
    assert places(fit(one(4000, modes=("mig",)), both))[0][0] == "d0"
    soft = fit(one(4000, modes=("hami-core",)), both)
    assert isinstance(soft, Plan)
    assert [part.card for part in soft.containers[0]] == ["d1"]
    assert isinstance(fit(one(4000, modes=("hami-core",)), empty()), Refusal)
    assert "CardTypeMismatch" in refusal(node(used("d1")), one(4000, modes=("mig",))).text
    for state in (empty(), node(used("d1"))):
        assert isinstance(fit(one(4000), state), Plan), "without the word either serves"
    assert len(places(fit(one(4000, cards=2, modes=("mig",)), both))) == 2


def test_a_card_with_slices_of_unknown_place_takes_no_more() -> None:
    unknown = node(CardState(mig_card(), 1, 4864, 15))
    assert "CardNotHealth" in refusal(unknown, one(1000)).text
    soft_with_instance = node(CardState(card("d0"), 1, 1, 1, instances=(Instance("1g.5gb", 0, 1),)))
    assert "CardNotHealth" in refusal(soft_with_instance, one(1000)).text
    overlap = (Instance("1g.5gb", 0, 1), Instance("2g.10gb", 0, 2))
    assert "CardNotHealth" in refusal(node(CardState(mig_card(), 2, 1, 1, instances=overlap)), one(1000)).text


def test_mutex_takes_a_card_that_nobody_is_on() -> None:
    state = node(
        CardState(mig_card("d0"), 1, 4864, 15, instances=(Instance("1g.5gb", 6, 1),)), CardState(mig_card("d1"))
    )
    asked = replace(one(4000, cards=2), card_policy=("mutex", "binpack"))
    assert {name for name, *_ in places(fit(asked, state))} == {"d1"}
    assert "ExclusiveDeviceAllocateConflict" in refusal(node(state.cards[0]), asked).text


def test_small_instances_go_where_the_large_ones_cannot_go_any_more() -> None:
    """Also under spread, which is the default: an instance disturbs no neighbour, so there is nothing to gain by it."""
    state = empty("d0", "d1", "d2")
    for _ in range(3):
        state = placed(state, one(4000))
    assert [len(one_card.instances) for one_card in state.cards] == [3, 0, 0]
    assert places(fit(one(40000), state))[0][1] == "7g.40gb"


@settings(max_examples=300, deadline=None)
@given(make.SEEDS)
def test_the_way_taken_is_the_best_of_all_there_are(seed: int) -> None:
    random = Random(seed)
    profiles = tuple(sorted(random.sample(A100, random.randint(1, 4)), key=lambda each: each.mem_mib))
    held: tuple[Instance, ...] = ()
    for each in random.choices(A100[:3], k=random.randrange(4)):
        place = random.choice(each.placements)
        if not mig.mask(held) & mig.bits(place.start, place.size):
            held = (*held, Instance(each.name, place.start, place.size))
    needs = tuple(
        mig.Need(random.choice((1000, 4864, 9000, 15000, 30000)), random.choice((0, 0, 15, 30)))
        for _ in range(random.randint(1, 3))
    )
    ways = brute(profiles, mig.mask(held), needs)
    found = mig.pack(profiles, held, needs)
    assert (found is None) == (not ways)
    if found is None:
        return
    assert found in ways
    least = min(memory(profiles, way) for way in ways)
    assert memory(profiles, found) == least, "the smallest profiles"
    best = max(largest(profiles, mig.mask(held), way) for way in ways if memory(profiles, way) == least)
    assert largest(profiles, mig.mask(held), found) == best, "the largest profile that can still be placed is maximal"


@settings(max_examples=100, deadline=None)
@given(make.SEEDS)
def test_the_ledger_keeps_places_apart_whatever_comes_and_goes(seed: int) -> None:  # 7.2, scheduler side
    random = Random(seed)
    ledger, held = Ledger(), []
    ledger.set_node(NodeRecord(NodeName("n"), (mig_card("d0"), mig_card("d1"), card("d2", mem_mib=40960))))
    for number in range(25):
        if held and random.random() < 0.4:
            ask = held.pop(random.randrange(len(held)))
            assert ledger.release(ask.pod.uid) or ledger.drop_pod(ask.pod.uid)
        else:
            asks = [want(random.choice((4000, 9000, 19000)), cards=random.choice((1, 1, 2)), modes=("mig",))]
            ask = pod(*(app(each) for each in asks), uid=f"p{number}")
            decision = ledger.decide(ask)
            if decision.plan is None:
                assert "CardMigTopologyInfeasible" in decision.refusals["n"].text
                continue
            ledger.reserve(ask, decision.plan, 0.0, 10.0)
            if random.random() < 0.5:
                record = PodRecord(ask.pod, NodeName("n"), decision.plan.containers, decision.plan.charges)
                ledger.set_pod(replace(record, spent=ledger.quotas._pods[ask.pod.uid][1]))
            held.append(ask)
        assert ledger.recount() == []
        state = ledger.node(NodeName("n"))
        assert state is not None
        assert all(each.sound for each in state.cards)
    for ask in held:
        ledger.drop_pod(ask.pod.uid)
    state = ledger.node(NodeName("n"))
    assert state is not None
    assert all(not each.instances and each.use == (0, 0, 0) for each in state.cards)


def test_a_record_without_places_closes_its_card_until_the_pod_goes() -> None:
    ledger = Ledger()
    ledger.set_node(NodeRecord(NodeName("n"), (mig_card("d0"), mig_card("d1"))))
    ref = PodRef("ns", "old", PodUid("old"))
    slices = ((Slice("d0", NVIDIA, 4864, 15),),)
    ledger.set_pod(PodRecord(ref, NodeName("n"), slices, (Charge("d0", 1, 4864, 15),)))
    assert ledger.recount() == []
    plan = ledger.decide(one(4000)).plan
    assert plan is not None
    assert places(plan)[0][0] == "d1"
    ledger.drop_pod(ref.uid)
    assert ledger.recount() == []
    assert {name for name, *_ in places(ledger.decide(one(4000, cards=8)).plan)} == {"d0", "d1"}


def test_nodes_with_and_without_mig_are_decided_together() -> None:
    ledger = Ledger()
    ledger.set_node(NodeRecord(NodeName("m"), (mig_card("d0"),)))
    ledger.set_node(NodeRecord(NodeName("s"), (card("d1", mem_mib=40960),)))
    both = ledger.decide(one(8000))
    assert both.feasible == ["m", "s"]
    two = ledger.decide(one(8000, cards=2))
    assert two.feasible == ["m"]
    assert two.refusals["s"].text == "NodeInsufficientDevice: asks 2 cards, the node has 1"


def test_the_refusal_in_full() -> None:
    """Of several cards the one that comes nearest; one that serves the ask nowhere is passed over."""
    full = CardState(mig_card("d0"), 2, 1, 1, instances=(Instance("3g.20gb", 0, 4), Instance("3g.20gb", 4, 4)))
    nearer = CardState(mig_card("d1"), 1, 1, 1, instances=(Instance("3g.20gb", 0, 4),))
    small = CardState(mig_card("d2", profiles=A100[:1]), 1, 1, 1, instances=(Instance("1g.5gb", 0, 1),))
    assert refusal(node(full), one(4000)).text == (
        "1/1 CardMigTopologyInfeasible: no place for another 1g.5gb (4000 MiB) on card d0 beside 3g.20gb at 0, "
        "3g.20gb at 4; nothing has one"
    )
    assert mig.explain(want(30000), [small, full, nearer]) == (
        "no place for another 7g.40gb (30000 MiB) on card d1 beside 3g.20gb at 0; "
        "the largest that still has one is 3g.20gb"
    )
    assert mig.explain(want(30000), []) == ""
    crowded = CardState(mig_card("d0", profiles=A100[3:]), instances=())
    assert "beside no other" in mig.explain(want(30000), [crowded])


@pytest.mark.parametrize(
    ("state", "ask", "said"),
    [
        (CardState(mig_card()), want(4000), None),
        (CardState(mig_card()), want(4000, cores=90), None),
        (CardState(mig_card()), want(4000, cores=100), None),
        (CardState(mig_card()), want(40193), (Reason.INSUFFICIENT_MEMORY, 40193, 40192)),
        (CardState(mig_card()), want(4000, cores=101), (Reason.INSUFFICIENT_CORE, 101, 100)),
        (CardState(mig_card(profiles=())), want(1), (Reason.INSUFFICIENT_MEMORY, 1, 0)),
        (
            CardState(mig_card(slots=2), 2, 1, 1, instances=(Instance("1g.5gb", 0, 1), Instance("1g.5gb", 1, 1))),
            want(4000),
            (Reason.SLOTS_EXHAUSTED, 1, 0),
        ),
        (
            CardState(mig_card(slots=3), 2, 1, 1, instances=(Instance("1g.5gb", 0, 1), Instance("1g.5gb", 1, 1))),
            want(4000),
            None,
        ),
        (
            CardState(mig_card(), 1, 1, 1, instances=(Instance("3g.20gb", 0, 4),)),
            want(30000),
            (Reason.MIG_INFEASIBLE, 30000, 19968),
        ),
    ],
)
def test_a_card_says_what_it_lacks(state: CardState, ask: CardAsk, said: tuple[Reason, int, int] | None) -> None:
    found = refuse(ask, state, False)
    assert (found and (found.reason, found.needed, found.had)) == said


def test_mutex_finds_no_card_with_an_instance() -> None:
    held = CardState(mig_card(), 1, 1, 1, instances=(Instance("1g.5gb", 0, 1),))
    found = refuse(want(4000), held, True)
    assert found is not None
    assert found.reason is Reason.EXCLUSIVE_CONFLICT
    assert refuse(want(4000), CardState(mig_card()), True) is None


def test_what_a_choice_costs_is_the_largest_profile_that_loses_its_place() -> None:
    assert mig.loss(A100, 0, mig.bits(0, 1)) == 40192 - 19968
    assert mig.loss(A100, mig.bits(0, 4), mig.bits(0, 5)) == 19968 - 4864
    assert mig.loss(A100, mig.bits(0, 7), mig.bits(0, 8)) == 0
    assert mig.loss(A100, mig.bits(0, 6), mig.bits(0, 8)) == 4864
    assert (mig.bits(2, 3), mig.mask([Instance("x", 0, 2), Instance("y", 5, 1)])) == (0b11100, 0b100011)


def test_of_profiles_with_the_same_memory_the_one_with_fewer_slices_is_taken() -> None:
    twins = (profile("1g.10gb", 9856, 15, 2, 0, 2, 4, 6, slices=1), profile("2g.10gb", 9856, 29, 2, 0, 2, 4))
    card_of = node(CardState(mig_card(profiles=twins[::-1])))
    assert places(fit(one(8000), card_of)) == [("d0", "1g.10gb", 6)], "and HAMi's high places first"
    assert places(fit(pod(app(want(8000, cores=20))), card_of)) == [("d0", "2g.10gb", 0)]
    left = mig.largest_left(twins, 0)
    assert left is not None
    assert left.name == "2g.10gb"


def test_instances_of_one_pod_count_against_the_slots_of_a_card() -> None:
    few = node(CardState(mig_card("d0", slots=3), 1, 1, 1, instances=(Instance("1g.5gb", 0, 1),)))
    assert len(places(fit(pod(app(want(4000)), app(want(4000))), few))) == 2
    assert isinstance(fit(pod(app(want(4000)), app(want(4000)), app(want(4000))), few), Refusal)
    assert isinstance(fit(pod(app(want(4000, cards=3))), few), Refusal)


def test_nobody_joins_an_instance_of_his_own_pod_under_mutex() -> None:
    two = pod(app(want(4000)), app(want(4000)), cards=("mutex",))
    assert isinstance(fit(two, empty("d0")), Refusal)
    assert [card for card, *_ in places(fit(two, empty("d0", "d1")))] == ["d0", "d1"]


def test_beside_cards_without_mig_an_init_container_s_instance_still_counts() -> None:
    """The init container may have the plain card, and leaves the one card in MIG mode to the others."""
    mixed = node(CardState(mig_card("d0", slots=1)), used("d1", mem_mib=5000))
    found = fit(pod(init(want(4000, modes=("mig",))), app(want(4000, modes=("mig",)))), mixed)
    assert isinstance(found, Refusal)
    found = fit(pod(init(want(4000)), app(want(4000, modes=("mig",)))), mixed)
    assert isinstance(found, Plan)
    assert [part.card for slices in found.containers for part in slices] == ["d1", "d0"]


def test_of_an_init_container_s_two_cards_the_one_in_mig_mode_keeps_its_instance() -> None:
    """The plain card comes first and is free again; an instance of the other stays, so all of it is not to be had."""
    mixed = node(used("d0", mem_mib=40_960), CardState(mig_card("d1")))
    first = init(want(4000, cards=2))
    assert isinstance(fit(pod(first, app(want(40_000, use_ids=("d1",))), cards=("numa",)), mixed), Refusal)
    assert isinstance(fit(pod(first, app(want(40_000, use_ids=("d0",))), cards=("numa",)), mixed), Plan)
