"""What `pack` learns of demand: every pod once, the mix of each family, what is frequent, and how it forgets."""

import pytest

from hami.model.ask import Ask, CardAsk
from hami.model.ids import PodUid
from hami.model.plan import ContainerSlices, Slice
from hami.plan.pack import demand as module
from hami.plan.pack.demand import Demand, Shape

from .builders import NVIDIA, OTHER, app, pod, want

SMALL, LARGE, WIDE = want(300), want(6000), want(8000, cards=4)


def seen(*asks: tuple[CardAsk, int]) -> Demand:
    """So many pods of each ask."""
    found = Demand()
    for kind, (one, count) in enumerate(asks):
        for number in range(count):
            found.see(pod(app(one), uid=f"{kind}-{number}"))
    return found


def counts(demand: Demand) -> dict[int | None, float]:
    """By memory."""
    return {ask.mem_mib: count for ask, count in demand.every(NVIDIA)}


def test_every_container_of_a_pod_is_an_ask_and_they_share_its_cpu() -> None:
    demand, one = Demand(), pod(app(SMALL), app(LARGE), uid="p")
    demand.see(Ask(one.pod, one.containers, cpu_milli=5001))
    shapes = {Shape(SMALL, 2500): 0.5, Shape(LARGE, 2500): 0.5}
    assert demand.mix(NVIDIA) == shapes
    assert demand.seen == 2


def test_each_family_has_its_own_mix() -> None:
    foreign = want(300, family=OTHER)
    demand = seen((SMALL, 1), (LARGE, 3), (foreign, 5))
    assert demand.mix(NVIDIA) == {Shape(SMALL): 0.25, Shape(LARGE): 0.75}
    assert demand.mix(OTHER) == {Shape(foreign): 1.0}
    assert [one.shape.ask for one in demand.frequent(OTHER)] == [foreign]


@pytest.mark.parametrize(
    ("ours", "theirs", "commonest"), [(3, 2, NVIDIA), (2, 3, OTHER), (2, 2, max(NVIDIA, OTHER)), (0, 1, OTHER)]
)
def test_the_commonest_family_is_the_one_asked_most_often(ours: int, theirs: int, commonest: str) -> None:
    many_shapes = [(want(300 + number, family=OTHER), 1) for number in range(theirs)]
    assert seen((SMALL, ours), *many_shapes).commonest == commonest
    assert Demand().commonest is None


def test_the_most_frequent_come_first_and_what_is_rare_is_noise() -> None:
    """19 of 20 are the 95 % that count; what comes after them does not, but for asks for several cards."""
    demand = seen((SMALL, 3), (LARGE, 16), (want(77), 1))
    assert [(one.shape.ask, one.weight) for one in demand.frequent(NVIDIA)] == [(LARGE, 16 / 19), (SMALL, 3 / 19)]
    wide = seen((WIDE, 1), (SMALL, 18), (want(77), 1))
    assert [one.shape.ask.cards for one in wide.frequent(NVIDIA)] == [1, 1, 4]


@pytest.mark.parametrize(("cards", "most"), [(1, "MOST_SHAPES"), (2, "MOST_WIDE")])
def test_no_more_shapes_are_looked_at_than_a_decision_has_time_for(
    cards: int, most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, most, 3)
    demand = seen(*((want(100 + number, cards=cards), 6 - number) for number in range(6)))
    assert [one.shape.ask.mem_mib for one in demand.frequent(NVIDIA)] == [100, 101, 102]


def test_counts_are_halved_and_what_was_asked_once_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 8)
    demand = Demand()

    def ask(mem: int, times: int) -> None:
        for _ in range(times):
            demand.see(pod(app(want(mem)), uid=f"{demand.seen}"))

    ask(1, 1)
    ask(2, 6)
    assert counts(demand) == {1: 1, 2: 6}
    ask(3, 1)
    assert counts(demand) == {1: 0.5, 2: 3, 3: 0.5}
    ask(2, 8)
    assert counts(demand) == {2: 5.5}


def test_a_pod_is_new_again_only_after_more_others_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 3)
    demand = Demand()
    for uid, learned in (("a", 1), ("b", 2), ("c", 3), ("a", 3), ("d", 4), ("b", 4), ("a", 5)):
        demand.see(pod(app(SMALL), uid=uid))
        assert demand.seen == learned, uid


def test_a_running_pod_teaches_what_its_slices_are_unless_it_has_asked() -> None:
    demand = Demand()
    two: ContainerSlices = tuple(Slice(card, NVIDIA, 6000, 20) for card in ("d0", "d1"))  # type: ignore[arg-type]
    demand.see_running(PodUid("u"), ((), two))
    assert demand.every(NVIDIA) == [(CardAsk(NVIDIA, 2, 20, mem_mib=6000), 1.0)]
    demand.see_running(PodUid("u"), (two,))
    assert demand.seen == 1


@pytest.mark.parametrize(
    ("asked", "left", "turnover"), [(0, 0, 0), (0, 1, 1), (5, 1, 1), (20, 1, 0.5), (20, 2, 1), (40, 1, 0.25)]
)
def test_turnover_is_what_part_of_a_tenth_has_left(asked: int, left: int, turnover: float) -> None:
    demand = seen((SMALL, asked))
    for _ in range(left):
        demand.leave(PodUid("gone"))
    assert demand.turnover == turnover


def test_of_asks_for_several_cards_the_twelve_most_frequent_count() -> None:
    demand = seen(*((want(size, cards=2), size) for size in range(1, 15)))
    assert [one.shape.ask.mem_mib for one in demand.frequent(NVIDIA)] == list(range(14, 2, -1))


def test_of_asks_for_one_card_the_thirty_two_most_frequent_count() -> None:
    assert len(seen(*((want(size), 1) for size in range(1, 41))).frequent(NVIDIA)) == 32


def test_the_shapes_of_one_width_are_told_by_themselves_the_most_frequent_first() -> None:
    two, other, foreign = want(500, cards=2), want(700, cards=2), want(500, cards=2, family=OTHER)
    demand = seen((SMALL, 9), (two, 1), (other, 3), (WIDE, 2), (foreign, 5))
    assert demand.wide(NVIDIA, 2) == [(Shape(other), 3.0), (Shape(two), 1.0)]
    assert demand.wide(NVIDIA, 4) == [(Shape(WIDE), 2.0)]
    assert demand.wide(OTHER, 4) == []


def test_of_too_many_shapes_the_rarest_are_forgotten_and_of_equal_ones_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 6)
    demand = seen((want(1), 3), *((want(size), 1) for size in range(2, 7)))
    assert counts(demand) == {1: 3, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}
    demand.see(pod(app(want(7)), uid="one more"))
    assert counts(demand) == {1: 3, 7: 1, 6: 1}
    assert demand.seen == 9
