"""What `pack` tells of a node: every seat, residue and card price as one would count them, one by one."""

from math import floor
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord, PodRecord
from hami.model.ask import Ask, CardAsk, ContainerAsk, ContainerKind, NodePolicy, PodRef
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge
from hami.plan.pack import Worth
from hami.plan.pack import worth as module
from hami.plan.pack.chooser import leading
from hami.plan.pack.judged import judging
from hami.plan.pack.prices import residues
from hami.plan.pack.scale import RESIDUES, SEVERAL, share_of
from hami.plan.policies import chain
from hami.plan.steps import finish

from .builders import OTHER, app, pod, want
from .packs import GPU, SIZES, N, Shape, ask, busy, card, demand_of, fresh, ledger_of, scale_of, taught

SEEN = 28
"""Asks after which everything is worked out anew, with all of them."""


def frequent(shapes: list[Shape]) -> dict[Shape, float]:
    """Those that matter, and how often each is asked among them."""
    counts: dict[Shape, int] = {}
    for one in shapes:
        counts[one] = counts.get(one, 0) + 1
    found: dict[Shape, int] = {}
    for one in sorted((one for one in counts if one[1] == 1), key=lambda one: -counts[one]):
        if sum(found.values()) < 0.95 * len(shapes):
            found[one] = counts[one]
    found |= {one: counts[one] for one in counts if one[1] > 1}
    return {one: count / sum(found.values()) for one, count in found.items()}


def seats(shape: Shape, rooms: list[int], model: str, cpu: float, turnover: float) -> float:
    """How many more of a shape the node could take."""
    mem, cards, need, types = shape
    if types and model not in types:
        return 0
    found: float = sum(room // mem for room in rooms)
    if cards > 1:
        sets = sum(room >= mem for room in rooms) / cards
        found = floor(sets) + turnover * (sets - floor(sets)) ** 2
    return min(found, max(cpu, 0) / need) if need else found


def served(shares: dict[Shape, float], rooms: list[int], cpu: float) -> float:
    """The part of the free room that the host's CPU would serve."""
    size = {one: part * one[0] * one[1] for one, part in shares.items()}
    able = {one: max(cpu, 0) / one[2] * one[0] * one[1] / max(sum(rooms), 1) if one[2] else 1.0 for one in shares}
    return sum(size[one] / sum(size.values()) * min(1.0, able[one]) for one in shares)


def said(shape: Shape) -> str:
    mem, cards, cpu, types = shape
    words = f"{cards} x {mem} MiB" + (f" of {types[0]}" if types else "")
    return words + (f" with {cpu / 1000:g} CPU" if cpu else "")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
@example(721287)  # two cards that lose the same
def test_what_is_told_is_what_a_slow_count_gives(seed: int) -> None:
    assert fresh(SEEN) == SEEN
    random = Random(seed)
    rooms = [random.choice((1000, 1000, 810, 530, 350, 0)) for _ in range(random.choice((1, 2, 4)))]
    model, cpu = random.choice("AB"), random.choice((500.0, 4000.0, 16_000.0))
    kinds: list[Shape] = [
        (random.choice(SIZES), 1, random.choice((0, 500, 2000)), random.choice(((), ("A",)))) for _ in range(3)
    ]
    kinds += [(1000, 2, random.choice((0, 4000)), ()), (650, 2, 1000, ())]
    shapes = [random.choice(kinds[: random.choice((1, 3, 5))]) for _ in range(SEEN)]
    left = random.choice((0, 1, 9))
    ledger = busy(rooms, model, cpu)
    taught(ledger, shapes, left)
    mem, cards = random.choice(((300, 1), (1000, 1), (500, 2)))
    need = random.choice((0, 1000))
    worth = ledger.worth(ask("next", mem, cards, need), N)
    able = [place for place, room in enumerate(rooms) if room >= mem]
    assert (worth is None) == (len(able) < cards)
    if worth is None:
        return
    after = list(rooms)
    for price in worth.prices:
        after[price.place] = price.free_after
    shares, turnover = frequent(shapes), min(left / (SEEN * 0.1), 1)
    due = {
        said(one): (seats(one, rooms, model, cpu, turnover), seats(one, after, model, cpu - need, turnover))
        for one in shares
    }
    told = {seat.shape: (seat.before, seat.after) for seat in worth.seats}
    for shape, (before, later) in due.items():
        assert told.get(shape, (before, before)) == pytest.approx((before, later), abs=1e-3), shape
    if not turnover:
        weights = {said(one): part * one[0] * one[1] * (SEVERAL if one[1] > 1 else 1) for one, part in shares.items()}
        assert {seat.shape: seat.weight for seat in worth.seats} == pytest.approx(
            {shape: weights[shape] for shape in told}, rel=1e-4
        )
    part: dict[int, float] = {}
    for one in shapes:
        part[one[0]] = part.get(one[0], 0.0) + (one[1] == 1)
    price_of = 1000 * residues({one: count for one, count in part.items() if count})
    before_and_after = [
        sum(price_of[room] for room in here) * served(shares, here, left_cpu)
        for here, left_cpu in ((rooms, cpu), (after, cpu - need))
    ]
    assert worth.residues == pytest.approx(RESIDUES * (before_and_after[1] - before_and_after[0]), abs=0.5, rel=1e-4)
    _same_cards(worth, rooms, mem, price_of.tolist())
    if not turnover:
        ours = {one: part * one[0] for one, part in shares.items() if one[1] == 1 and (not one[3] or model in one[3])}
        by_size = {size: sum(weight for one, weight in ours.items() if one[0] == size) for size in SIZES}
        _cheapest_cards(worth, mem, price_of.tolist(), by_size)


def _same_cards(worth: Worth, rooms: list[int], mem: int, table: list[float]) -> None:
    """The cards are told as they are, at their prices."""
    assert [price.place for price in worth.prices] == [place for place, room in enumerate(rooms) if room]
    for price in worth.prices:
        assert price.free == rooms[price.place]
        assert price.free - price.free_after in (0, mem)
        assert (price.worth, price.worth_after) == pytest.approx((table[price.free], table[price.free_after]), abs=1e-3)


def _cheapest_cards(worth: Worth, mem: int, table: list[float], singles: dict[int, float]) -> None:
    """Those are taken that lose least; of those that lose the same the fullest, of equal ones the first. `singles` are
    what a seat for one card weighs, by its MiB."""

    def loss(room: int) -> float:
        lost = sum(weight * (room // size - (room - mem) // size) for size, weight in singles.items())
        return RESIDUES * (table[room] - table[room - mem]) + lost

    able = [price for price in worth.prices if price.free >= mem]
    taken = [price for price in able if price.free != price.free_after]
    for one in taken:
        for other in able:
            if other not in taken:
                assert loss(one.free) <= loss(other.free) + 0.05
                if abs(loss(one.free) - loss(other.free)) < 1e-9:
                    assert (one.free, one.place) < (other.free, other.place)


def test_before_anybody_has_asked_whole_cards_are_the_guess() -> None:
    ledger = busy([1000, 1000, 600])
    worth = ledger.worth(ask("one", 1000), N)
    assert worth is not None
    assert [(seat.shape, seat.weight, seat.before, seat.after) for seat in worth.seats] == [
        ("1 x 100 % memory", 1000, 2, 1)
    ]
    assert (worth.residues, worth.score, worth.formula) == (-6000, -7000, "seats -1000.0 - residues 6000.0")


def test_the_dearest_seats_come_first_and_residues_that_stay_are_said_to() -> None:
    ledger = busy([600])
    taught(ledger, [*[(500, 1, 0, ())] * 10, *[(100, 1, 0, ())] * 18], 0)
    worth = ledger.worth(ask("next", 200), N)
    assert worth is not None
    assert [(seat.shape, round(seat.change)) for seat in worth.seats] == [
        ("1 x 500 MiB", -179), ("1 x 100 MiB", -129)
    ]  # fmt: skip
    assert worth.seats == tuple(sorted(worth.seats, key=lambda seat: seat.change))
    kept = busy([600])
    taught(kept, [(500, 1, 0, ())] * SEEN, 0)
    same = kept.worth(ask("next", 100), N)
    assert same is not None
    assert (same.residues, same.formula, same.seats) == (0, "seats +0.0 + residues 0.0", ())


@pytest.mark.parametrize(
    ("fields", "used", "room"),
    [
        ({}, (0, 0, 0), 1000),
        ({}, (1, 250, 0), 750),
        ({}, (1, 250, 40), 600),  # the smaller of memory and cores
        ({}, (1, 0, 100), None),
        ({}, (1, 1000, 0), None),
        ({}, (1, 999, 0), 1),
        ({}, (0, -250, -50), 1000),  # who is told to give back more than he took
        ({}, (100, 0, 0), None),
        ({}, (99, 0, 0), 1000),
        ({"core_percent": 0}, (1, 250, 0), 750),  # a card that does not count cores
        ({"core_percent": 200}, (1, 0, 100), 500),
        ({"core_percent": 1}, (1, 0, 1), None),
        ({"core_percent": 1}, (1, 0, 0), 1000),
        ({"mem_mib": 1}, (1, 0, 0), 1000),
        ({"healthy": False}, (0, 0, 0), None),
        ({"family": Family("DCU")}, (0, 0, 0), None),
        ({"mem_mib": 2000}, (1, 500, 0), 750),
    ],
)
def test_a_card_s_room_is_what_its_scarcest_part_leaves(
    fields: dict[str, object], used: tuple[int, int, int], room: int | None
) -> None:
    """Beside an idle one, which takes the ask."""
    ledger, own = Ledger(), {"slots": 100, "mem_mib": 1000, "core_percent": 100} | fields
    family = own.pop("family", GPU)
    odd = Card(CardId("odd"), family, "B", 1, **own)  # type: ignore[arg-type]
    ledger.set_node(NodeRecord(N, (card("n", 0), odd)))
    ref = PodRef("ns", "old", PodUid("old"))
    ledger.set_pod(PodRecord(ref, N, charges=(Charge(CardId("odd"), *used),)))
    worth = ledger.worth(ask("one", 1000), N)
    assert worth is not None
    assert [price.free for price in worth.prices] == [1000] + [room] * (room is not None)


def test_a_cordoned_card_has_no_room() -> None:
    ledger = Ledger()
    ledger.set_node(NodeRecord(N, (card("n", 0), card("n", 1)), frozenset({CardId("n/1")})))
    worth = ledger.worth(ask("one", 1000), N)
    assert worth is not None
    assert [price.place for price in worth.prices] == [0]


@pytest.mark.parametrize(
    ("one", "of_card", "share"),
    [
        (want(500), (1000, 100), 500),
        (want(500, cores=60), (1000, 100), 600),
        (want(500, cores=60), (1000, 200), 500),
        (want(500, cores=60), (1000, 0), 500),
        (want(1), (3000, 100), 1),  # rounded up
        (want(percent=33), (1000, 100), 330),
        (want(0), (1000, 100), 0),
        (want(0, cores=1), (1000, 300), 4),
        (want(2000), (1000, 100), 2000),
        (want(500), (0, 100), 0),  # no card of ours
        (want(1), (1, 100), 1000),
        (want(0, cores=1), (1000, 1), 1000),
    ],
)
def test_an_ask_takes_the_larger_of_memory_and_cores(one: CardAsk, of_card: tuple[int, int], share: int) -> None:
    assert share_of(one, *of_card) == share


@pytest.mark.parametrize(
    ("asks", "leads"),
    [
        ((want(100), want(5000)), 1),
        ((want(5000), want(100)), 0),
        ((want(5000), want(100, cards=2)), 1),
        ((want(percent=20), want(percent=80)), 1),
        ((want(0), want(percent=1)), 1),
        ((want(100), want(100)), 0),
        ((want(100), want(percent=90)), 1),
        ((want(7000), want(percent=80)), 0),
        ((want(6000), want(percent=80)), 1),
        ((want(4000), want(100, cores=60)), 1),
        ((want(4000), want(1000, family=OTHER)), 1),
    ],
)
def test_a_pod_goes_by_the_ask_of_most_cards_then_of_the_largest_part_of_one(
    asks: tuple[CardAsk, ...], leads: int
) -> None:
    """Of cards with 8000 MiB; those of the other family have 1000."""

    def part(ask: CardAsk) -> float:
        return share_of(ask, 1000 if ask.family == OTHER else 8000, 100)

    assert leading(pod(*map(app, asks)), part).container == leads


def test_where_a_few_mib_and_nine_tenths_of_a_card_are_asked_the_nine_tenths_are_weighed() -> None:
    ledger, large = busy([1000, 500]), want(percent=90, family=GPU)
    both = pod(app(want(100, family=GPU)), app(large), nodes=NodePolicy.PACK)
    assert ledger.worth(both, N) == ledger.worth(pod(app(large), nodes=NodePolicy.PACK), N)
    assert ledger.worth(both, N) != ledger.worth(pod(app(want(100, family=GPU)), nodes=NodePolicy.PACK), N)


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        ((), True),
        (("binpack",), True),
        (("spread",), True),
        (("binpack", "spread"), True),
        (("numa",), False),
        (("binpack", "numa"), False),
        (("mutex", "binpack"), False),
        (("topology-aware",), False),
    ],
)
def test_pack_chooses_cards_only_where_nothing_but_their_fullness_was_asked_for(
    words: tuple[str, ...], plain: bool
) -> None:
    assert chain(words).plain == plain


@pytest.mark.parametrize(("words", "taken"), [(("spread",), "n/1"), (("numa", "spread"), "n/0")])
def test_pack_leaves_cards_to_a_policy_that_asks_for_more(words: tuple[str, ...], taken: str) -> None:
    ledger = busy([1000, 500])
    one = Ask(
        PodRef("ns", "u", PodUid("u")),
        (ContainerAsk("main", ContainerKind.APP, (CardAsk(GPU, 1, 0, mem_mib=500),)),),
        NodePolicy.PACK,
        words,
    )
    plan = ledger.decide(one).plan
    assert plan is not None
    assert plan.containers[0][0].card == taken


def test_a_pod_without_cards_goes_where_no_room_of_a_card_needs_its_cpu() -> None:
    ledger = Ledger()
    for name, cpu in (("full", 9000.0), ("idle", 64_000.0), ("poor", 8000.0)):
        ledger.set_node(NodeRecord(NodeName(name), (card(name, 0),)))
        ledger.set_host(NodeName(name), cpu)
    ref = PodRef("ns", "old", PodUid("old"))
    ledger.set_pod(PodRecord(ref, NodeName("full"), charges=(Charge(CardId("full/0"), 1, 1000, 0),)))
    host = ask("host", 0, cards=0, cpu=1000)
    assert ledger.shelter(host, ["full", "idle", "poor"]) is None  # nobody knows what is asked
    taught(ledger, [(1000, 1, 16_000, ())] * 4, 0)
    assert ledger.shelter(host, ["poor", "idle", "full"]) == "full"
    assert ledger.shelter(host, ["poor", "idle"]) == "idle"
    assert ledger.shelter(host, ["poor", "none"]) == "none"  # a node without cards costs none
    assert ledger.shelters(host, ["full", "poor", "none"]) == ["full", "none"]  # both cost none
    assert ledger.shelters(host, []) == []


def test_rows_that_were_looked_at_are_not_looked_at_again_because_others_came(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = ledger_of(*[(f"n{number}", 1, "A", 1e9) for number in range(3)])
    columns, looked, places = ledger._index.columns, [], module._places
    own = finish(judging(demand_of((500, 1, 0, 3)), GPU, columns))
    for number in range(100):
        ledger.set_node(NodeRecord(NodeName(f"late{number}"), (card(f"late{number}", 0),)))
    own.follow(columns)
    monkeypatch.setattr(module, "_places", lambda *given: looked.extend(given[1].tolist()) or places(*given))
    own.rows.refresh(columns, np.arange(columns.rows))
    assert looked == list(range(3, 103))


def test_what_asks_take_is_remembered_of_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = scale_of(demand_of((500, 1, 0, 3)), card("n", 0))
    one, other = want(10, family=GPU), want(20, family=GPU)
    first, _ = scale.shares(one), scale.shares(other)
    assert scale.shares(one) is first
    monkeypatch.setattr("hami.plan.pack.scale.MOST_SHARES", 3)
    for size in range(1, 9):
        found = scale.shares(want(size, family=GPU))
        assert scale.shares(want(size, family=GPU)) is found
        assert 0 < len(scale._shares) <= 3
