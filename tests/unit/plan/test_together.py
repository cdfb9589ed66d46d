"""Containers of one pod that meet on cards, asked of all nodes at once, against trying every way."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings

from hami.model.ask import Ask, CardAsk, CardRules, ContainerAsk, ContainerKind
from hami.plan import choose as choosing
from hami.plan.choose import choose
from hami.plan.exact.fit import fit
from hami.plan.fleet import screen as screening
from hami.plan.fleet.sharing import _reached, _reached_by_table
from hami.plan.snapshot import CardState, NodeState

from . import builders as make
from . import oracle
from .builders import NVIDIA, app, init, node, pod, sidecar, table, used, want


def feasible(ask: Ask, *states: NodeState) -> list[str]:
    return choose(ask, table(states)).feasible


def random_meeting(random: Random) -> Ask:
    """Two to six containers that want the same cards, in sizes that just fit or just do not."""

    def size() -> CardAsk:
        percent = random.choice((30, 50, 60, 100)) if random.random() < 0.3 else None
        rules = CardRules(numa_bind=random.random() < 0.3, nouse_types=random.choice(((), (), ("V100",))))
        mem = random.choice((0, 3, 5, 6)) if percent is None else None
        return CardAsk(NVIDIA, random.choice((1, 1, 2)), random.choice((0, 30, 50, 100)), mem, percent, rules)

    sizes = [size() for _ in range(random.choice((1, 2, 3)))]
    kinds = [random.choice((ContainerKind.INIT, ContainerKind.SIDECAR)) for _ in range(random.choice((0, 0, 1, 2)))]
    kinds += [ContainerKind.APP] * random.choice((1, 2, 3, 4))
    return pod(
        *(ContainerAsk("c", kind, (random.choice(sizes),)) for kind in kinds),
        cards=random.choice((("spread",), ("binpack",), ("mutex",))),
    )


def random_room(random: Random, name: str) -> NodeState:
    cards = []
    for index in range(random.choice((1, 2, 3, 4))):
        own = {"slots": random.choice((1, 2, 4)), "mem_mib": random.choice((6, 10)), "numa": random.randrange(2)}
        own |= {"core_percent": random.choice((100, 100, 200, 0)), "model": random.choice(("A100", "A100", "V100"))}
        taken = random.choice(((0, 0, 0), (0, 0, 0), (1, 3, 50), (1, 1, 100)))
        cards.append(CardState(make.card(make.IDS[index], **own), *taken))
    return node(*cards, name=name)


@settings(max_examples=300, deadline=None)
@given(make.SEEDS)
def test_a_meeting_is_settled_as_trying_every_way_settles_it(seed: int) -> None:
    random = Random(seed)
    ask = random_meeting(random)
    states = [random_room(random, f"n{number:02}") for number in range(8)]
    assert feasible(ask, *states) == [state.name for state in states if oracle.fits(ask, state)]


def test_two_that_are_bound_to_the_same_numa_node_do_not_fit_because_a_third_is_not() -> None:
    """Five whole cards for five, but only two of them share a NUMA node."""
    bound = want(1, cores=100, cards=2, numa_bind=True)
    apart = node(used("d0"), used("d1"), used("d2", numa=1), used("d3", numa=2), used("d4", numa=3), name="apart")
    cards = (used("d0"), used("d1"), used("d2", numa=1), used("d3", numa=1), used("d4", numa=3))
    first, pairs = node(*cards, name="a"), node(*cards, name="pairs")  # the best one is looked at exactly in any case
    assert feasible(pod(app(bound), app(bound), app(want(1, cores=100))), first, apart, pairs) == ["a", "pairs"]


@pytest.mark.parametrize(
    ("containers", "fits"),
    [
        ((app(want(4000)), app(want(4000))), True),
        ((app(want(4000)), app(want(4001))), False),
        ((app(want(4000, cores=50)), app(want(4000, cores=50))), True),
        ((app(want(4000, cores=50)), app(want(4000, cores=51))), False),
        ((app(want(1, cores=100)), app(want(1))), False),
        ((app(want(percent=50)), app(want(percent=50))), True),
        ((app(want(percent=50)), app(want(percent=51))), False),
        ((init(want(8000)), app(want(8000))), True),
        ((sidecar(want(1000)), init(want(8000)), app(want(1))), False),
        ((sidecar(want(1000)), init(want(7000)), app(want(7000))), True),
        ((init(want(8000)), sidecar(want(1000)), app(want(7000))), True),
        ((sidecar(want(1)), init(want(5000)), init(want(5000)), app(want(1))), True),  # one after the other
        ((sidecar(want(1)), init(want(5000)), init(want(8000)), app(want(1))), False),
        (tuple(app(want(800)) for _ in range(10)), True),
        (tuple(app(want(1)) for _ in range(11)), False),
        (tuple(app(want(1333)) for _ in range(6)), True),
        (tuple(app(want(1334)) for _ in range(6)), False),
    ],
)
def test_what_meets_on_one_card_shares_it(containers: tuple[ContainerAsk, ...], fits: bool) -> None:
    assert bool(feasible(pod(*containers), node(used("d0"), name="n"))) == fits


def test_nobody_joins_a_container_of_his_own_pod_under_mutex() -> None:
    two = pod(app(want(1)), app(want(1)), cards=("mutex",))
    assert feasible(two, node(used("d0"), name="one"), node(used("d0"), used("d1"), name="two")) == ["two"]


PAIRS = (app(want(5000, cards=2)), app(want(4000, cards=2)))
LARGE = (app(want(5000, cards=3)), app(want(5000, cards=3)), app(want(1)))


@pytest.mark.parametrize(
    ("containers", "cards", "fits"),
    [
        (PAIRS, (8000, 8000, 8000), False),  # three cards hold a pair each way, and no two pairs
        (PAIRS, (8000, 8000, 8000, 8000), True),
        (PAIRS, (9000, 8000, 4000), True),
        (PAIRS, (8999, 8000, 4000), False),
        (PAIRS, (9000, 9000), True),
        (LARGE, (20000, 8000, 8000), False),  # one card holds all, and each alone would find three
        (LARGE, (20000, 10001, 10000), True),
        ((app(want(1)), app(want(1))), (2,), True),
        ((app(want(1)), app(want(1)), app(want(1))), (2,), False),
        ((app(want(0)), app(want(0))), (2,), True),
        ((app(want(percent=40)), app(want(percent=60))), (10,), True),
        ((app(want(percent=41)), app(want(percent=60))), (10, 10), True),
        ((app(want(percent=50)), app(want(percent=60)), app(want(percent=60))), (10, 10), False),
        ((app(want(4)), app(want(percent=60)), app(want(percent=60))), (10, 10), True),
        ((app(want(5)), app(want(percent=60)), app(want(percent=60))), (10, 10), False),
        ((app(want(6, cores=50)), app(want(4, cores=60)), app(want(4, cores=50))), (10, 10), True),
        ((app(want(6, cores=50)), app(want(4, cores=60)), app(want(5, cores=50))), (10, 10), False),
        ((app(want(6)), app(want(6)), app(want(5))), (10, 10, 5), True),  # the third card is of use
        ((app(want(6)), app(want(6)), app(want(5))), (5, 5, 10, 10, 5), True),
        ((app(want(6)), app(want(6)), app(want(6))), (10, 5, 10, 5, 5), False),
        ((app(want(6)), app(want(6)), app(want(6))), (10, 10, 5, 5, 5, 5, 10), True),
        ((app(want(1)),) * 3 + (app(want(0)),) * 3, (2, 1), True),  # who asks nothing takes nobody's last MiB
        ((app(want(1)),) * 4 + (app(want(0)),) * 2, (2, 1), False),
        ((app(want(1)),) * 3 + (app(want(0)),) * 2 + (app(want(0, cards=2)),), (2, 1), True),
    ],
)
def test_whether_all_find_cards_is_told_of_nodes_that_nobody_looks_at_closely(
    containers: tuple[ContainerAsk, ...], cards: tuple[int, ...], fits: bool
) -> None:
    """The best node, here the one with room for everybody, is looked at exactly in any case."""
    roomy = node(*(used(f"d{place}", mem_mib=100_000) for place in range(6)), name="a")
    asked = node(*(used(f"d{place}", mem_mib=mem) for place, mem in enumerate(cards)), name="n")
    assert oracle.fits(pod(*containers), asked) == fits
    assert feasible(pod(*containers), roomy, asked) == ["a", "n"][: 1 + fits]


FEW = 6
"""One more than is shared out exactly by columns: what is not settled otherwise is looked at node by node."""


@pytest.mark.parametrize(
    ("containers", "own", "fits", "looks"),
    [
        ([want(3000)] * FEW, {}, False, 0),
        ([want(5000)] * 3 + [want(1000)] * 3, {}, False, 0),
        ([want(percent=40)] * FEW, {}, False, 0),
        ([want(percent=60)] * 3 + [want(percent=10)] * 3, {}, False, 0),
        ([want(1, cores=40)] * FEW, {}, False, 0),
        ([want(1, cores=100)] * 3 + [want(1)] * 3, {}, False, 0),
        ([want(1, cores=60)] * 3 + [want(1, cores=20)] * 3, {}, False, 0),
        ([want(1)] * FEW, {"slots": 8}, False, 0),
        ([want(0)] * FEW, {"slots": 8}, False, 0),
        ([want(3000, nouse_types=("V100",))] * FEW, {}, False, 0),
        ([want(3000)] * 2 + [want(3000, cards=2)] * 2 + [want(1)] * 2, {}, False, 0),
        ([want(1)] * FEW, {"mem_mib": 2}, False, 0),
        ([want(1)] * FEW, {"mem_mib": 5}, True, 1),  # more than one card holds
        ([want(0)] * FEW, {"slots": 6, "mem": 8000}, True, 1),
        ([want(percent=10)] * FEW, {}, True, 1),  # one card holds all
        ([want(1)] * FEW, {"slots": 7}, True, 1),  # to the last slot
        ([want(1, cores=25)] * 8, {}, True, 1),  # to the last percent
        ([want(1)] * FEW, {"mem_mib": 5, "slots": 1, "cores": 99}, True, 1),
        ([want(1)] * FEW, {"mem_mib": 5, "core_percent": 0}, True, 1),
        ([want(1, cores=100)] * 8, {"core_percent": 400}, True, 1),  # nobody asks for such a card alone
        ([want(5000, cores=100)] + [want(1000, cores=10)] * 5, {}, True, 1),
        ([want(3000)] * 2 + [want(500, cores=50)] * 4, {}, True, 10),  # who asks for no cores might come too late
        ([want(3000, cores=50)] * 2 + [want(500)] * 4, {}, True, 1),  # the small ones go where cores are left
        ([want(1000)] * 5 + [want(500, cores=100)], {}, True, 1),  # who wants a card alone finds the other one
        ([want(2000)] * 5 + [want(500, cores=100)], {}, False, 9),  # no card is left for who wants one alone
        ([want(4)] * 2 + [want(3)] * 4, {"mem_mib": 10}, True, 10),  # the largest first is not the way
        ([want(percent=20)] * FEW, {"mem_mib": 5}, True, 10),
        ([want(3)] * 3 + [want(5)] * 3, {"mem_mib": 11}, False, 0),  # more than there is in all, though not by seats
        ([want(1000)] * FEW, {}, True, 1),  # the best node alone
        ([want(5000)] * 2 + [want(3000)] * 2, {}, True, 1),  # few enough: no sum fits one card, yet they are shared out
        ([want(5000)] * 2 + [want(4000)] + [want(3000)], {}, False, 0),
        ([want(6000)] * 2 + [want(1000, cards=2)], {}, True, 10),  # an ask for two cards is looked at everywhere
    ],
)
def test_most_nodes_are_settled_without_a_closer_look(
    containers: list[CardAsk], own: dict[str, int], fits: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def looked(ask: Ask, state: NodeState) -> object:
        seen.append(state.name)
        return fit(ask, state)

    monkeypatch.setattr(choosing, "fit", looked)
    monkeypatch.setattr(screening, "fit", looked)
    states = [node(used("d0", **own), used("d1", **own), name=f"n{number}") for number in range(9)]
    asked = pod(*map(app, containers))
    assert oracle.fits(asked, states[0]) == fits
    assert len(feasible(asked, *states)) == fits * len(states)
    assert len(seen) == looks


def test_who_may_go_to_few_cards_says_nothing_of_who_may_go_to_all() -> None:
    """Four of 3000 on two cards, one of them not on the V100."""
    first = node(*(used(f"d{place}", mem_mib=100_000) for place in range(4)), name="a")
    mixed = node(used("d0"), used("d1", model="NVIDIA-V100"), name="n")
    picky = app(want(3000, nouse_types=("V100",)))
    assert feasible(pod(picky, *[app(want(3000))] * 3), first, mixed) == ["a", "n"]
    assert feasible(pod(picky, picky, picky, app(want(3000))), first, mixed) == ["a"]


def test_who_asks_no_part_of_a_card_takes_nobodys_last_percent() -> None:
    first = node(*(used(f"d{place}", mem_mib=100_000) for place in range(6)), name="a")
    left = node(used("d0", mem_mib=100, mem=98), used("d1", mem_mib=100, mem=99), name="n")
    one, none = app(want(percent=1)), app(want(percent=0))
    assert feasible(pod(*[one] * 3, *[none] * 3), first, left) == ["a", "n"]
    assert feasible(pod(*[one] * 4, *[none] * 2), first, left) == ["a"]


@pytest.mark.parametrize("wants", [1, 2, 3])
@pytest.mark.parametrize("cards", range(1, 9))
def test_what_two_cards_serve_together_looked_up_is_what_going_card_by_card_finds(cards: int, wants: int) -> None:
    random = np.random.default_rng(cards)
    holds = [random.random((cards, 60)) < 0.3 for _ in range(2**wants - 1)]
    assert _reached_by_table(holds, wants).tolist() == _reached(holds, wants).tolist()
