"""Kubernetes arithmetic of init containers, sidecars and app containers."""

import pytest

from hami.model.ask import ContainerKind
from hami.model.card import Instance
from hami.model.ids import CardId
from hami.model.plan import Charge, ContainerSlices, Slice
from hami.plan.exact.charge import charges

from .builders import NVIDIA

INIT, SIDECAR, APP = ContainerKind.INIT, ContainerKind.SIDECAR, ContainerKind.APP


def on(card: str, mem: int, cores: int = 0) -> ContainerSlices:
    return (Slice(CardId(card), NVIDIA, mem, cores),)


def charge(card: str, slots: int, mem: int, cores: int = 0) -> Charge:
    return Charge(CardId(card), slots, mem, cores)


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        ([], []),
        ([(APP, ())], []),
        ([(APP, on("a", 5))], [charge("a", 1, 5)]),
        ([(APP, on("a", 5, 10)), (APP, on("a", 3, 20))], [charge("a", 2, 8, 30)]),
        ([(INIT, on("a", 5)), (APP, on("a", 4))], [charge("a", 1, 5)]),
        ([(INIT, on("a", 5)), (INIT, on("a", 7)), (APP, on("a", 4))], [charge("a", 1, 7)]),
        ([(INIT, on("a", 5, 50)), (APP, on("a", 8, 10))], [charge("a", 1, 8, 50)]),
        ([(INIT, on("b", 5)), (APP, on("a", 4))], [charge("a", 1, 4), charge("b", 1, 5)]),
        ([(SIDECAR, on("a", 2)), (APP, on("a", 4))], [charge("a", 2, 6)]),
        ([(SIDECAR, on("a", 2)), (INIT, on("a", 9)), (APP, on("a", 4))], [charge("a", 2, 11)]),
        ([(INIT, on("a", 9)), (SIDECAR, on("a", 2)), (APP, on("a", 4))], [charge("a", 2, 9)]),
        ([(SIDECAR, on("a", 2)), (INIT, on("b", 9)), (APP, ())], [charge("a", 1, 2), charge("b", 1, 9)]),
    ],
)
def test_a_card_bears_the_larger_of_the_highest_init_phase_and_all_that_keeps_running(
    containers: list[tuple[ContainerKind, ContainerSlices]], expected: list[Charge]
) -> None:
    assert charges(containers) == tuple(expected)


def test_init_containers_that_are_done_no_longer_count_but_sidecars_do() -> None:
    containers = [(SIDECAR, on("a", 2)), (INIT, on("a", 9)), (INIT, on("b", 3)), (APP, on("a", 4))]
    assert charges(containers, init_done=True) == (charge("a", 2, 6),)


def test_cards_are_sorted_by_id_whatever_the_order_of_the_record() -> None:
    assert [one.card for one in charges([(APP, on("b", 1)), (APP, on("a", 1))])] == ["a", "b"]


def instance(name: str, mem: int, cores: int, start: int, size: int) -> Slice:
    return Slice(CardId(name), NVIDIA, mem, cores, Instance(f"{size}g", start, size))


def test_every_mig_instance_counts_whatever_its_container_and_as_long_as_the_pod_lives() -> None:
    first, second = instance("a", 9856, 29, 2, 2), instance("a", 4864, 15, 6, 1)
    other = Slice(CardId("b"), NVIDIA, 700, 10)
    parts = ((ContainerKind.INIT, (first, other)), (ContainerKind.APP, (second,)))
    whole = Charge(CardId("a"), 2, 14720, 44, (Instance("1g", 6, 1), Instance("2g", 2, 2)))
    assert charges(parts) == (whole, Charge(CardId("b"), 1, 700, 10))
    assert charges(parts, init_done=True) == (whole,)


def test_a_card_with_instances_and_slices_bears_both() -> None:
    shared = Slice(CardId("a"), NVIDIA, 700, 10)
    parts = ((ContainerKind.APP, (instance("a", 4864, 15, 0, 1), shared)),)
    assert charges(parts) == (Charge(CardId("a"), 2, 5564, 25, (Instance("1g", 0, 1),)),)
