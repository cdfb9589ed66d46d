"""Which of the nodes that refuse an ask are nearest to taking it."""

import pytest

from hami.model.ask import CardAsk
from hami.plan.advice.distance import distance
from hami.plan.snapshot import CardState

from .builders import OTHER, app, node, pod, used, want


@pytest.mark.parametrize(
    ("near", "far"),
    [
        (used("d0", mem=2000), used("d0", mem=4000)),
        (used("d0", cores=60), used("d0", cores=90)),
        (used("d0", cores=60), used("d0", cordoned=True)),
        (used("d0", mem=2000), used("d0", mem=2000, cores=60)),
        (used("d0", model="NVIDIA-V100"), used("d0", cordoned=True)),
        (used("d0", cordoned=True), used("d0", healthy=False)),
        (used("d0", slots=10), used("d0", slots=10, mem=7000)),
        (used("d0", mem_mib=4000), used("d0", mem_mib=1000)),
    ],
)
def test_a_node_that_lacks_less_is_nearer(near: CardState, far: CardState) -> None:
    ask = pod(app(want(8000, cores=50, use_types=("A100",))))
    assert 0 < distance(ask, node(near)) < distance(ask, node(far))


def test_distance_counts_the_best_cards_and_those_that_are_not_there() -> None:
    two = pod(app(want(8000, cards=2)))
    assert distance(two, node(used("d0"), used("d1"), used("d2", mem=8000))) == 0
    assert distance(two, node(used("d0"), used("d1", mem=4000))) == 0.5
    assert distance(two, node(used("d0"))) == 2
    assert distance(two, node(used("d0"), used("d1", healthy=False))) == 4
    assert distance(two, node(used("d0"), used("d1", family=OTHER))) == 2
    assert distance(two, node(used("d0"), used("d1"), problem="silent")) > distance(two, node())
    assert distance(pod(app(want(8000)), app(want(8000, use_ids=("d9",)))), node(used("d0"))) == 0.75


@pytest.mark.parametrize(
    ("near", "far"),
    [(want(0), 0), (want(0, cores=10), 0), (want(1000), 0), (want(9000), 1 / 9), (want(0, cores=200), 0.5)],
)
def test_a_node_with_one_slot_left_lacks_no_slot(near: CardAsk, far: float) -> None:
    assert distance(pod(app(near)), node(used("d0", slots=9))) == pytest.approx(far)
    assert distance(pod(app(near)), node(used("d0", slots=10))) == pytest.approx(far + 1)
