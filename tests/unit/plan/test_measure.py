"""Measuring fragmentation of several asks at once: which census each has, how plans are shared out, what is told."""

import pytest

from hami.model.ask import Ask
from hami.model.refusal import Reason
from hami.plan.advice import seats
from hami.plan.advice.fragmentation import measure
from hami.plan.advice.typical import Typical
from hami.plan.snapshot import NodeState
from hami.plan.steps import finish

from .builders import app, init, linked, node, pod, used, want


def fits(nodes: list[NodeState], *asks: Ask) -> dict[str, int]:
    typical = [Typical(f"ask {number}", ask, 1) for number, ask in enumerate(asks)]
    return {one.name: one.fits for one in finish(measure(typical, nodes)).rooms}


PLAIN = pod(app(want(8000)))


def test_one_ask_that_names_cards_among_others_is_counted_card_by_card() -> None:
    nodes = [node(used("d0"), used("d1"), name="n0"), node(used("d2"), name="n1")]
    assert fits(nodes, PLAIN, pod(app(want(8000, use_ids=("d1",))))) == {"ask 0": 3, "ask 1": 1}
    assert fits(nodes, PLAIN, pod(app(want(8000, nouse_ids=("d1",))))) == {"ask 0": 3, "ask 1": 2}


def test_one_container_that_names_cards_makes_the_whole_pod_look_at_each() -> None:
    nodes = [node(used("d0"), name="n0"), node(used("d1"), name="n1")]
    assert fits(nodes, pod(app(want(100)), app(want(7900, use_ids=("d1",))))) == {"ask 0": 1}


def test_who_looks_at_links_and_needs_planning_is_planned_on_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of equal cards differ in their links; an ask with a closed form does not care."""
    states = [linked({(0, 1): 5}, cards=2), linked({(0, 1): 9}, cards=2)]
    nodes = [NodeState(f"n{number}", 1, one.cards, None, one.links) for number, one in enumerate(states)]  # type: ignore[arg-type]
    several = pod(app(want(8000)), app(want(8000)), cards=("topology-aware",))
    one = pod(app(want(8000, cards=2)), cards=("topology-aware",))
    planned = counted(monkeypatch)
    found = finish(measure([Typical("several", several, 1), Typical("one", one, 1)], nodes))
    assert {room.name: (room.fits, room.searched) for room in found.rooms} == {"several": (2, 2), "one": (2, 2)}
    assert set(planned) == {"n0", "n1"}


def test_of_cards_with_as_much_memory_the_first_says_how_large_an_ask_is() -> None:
    small, wide = node(used("d0"), name="n0"), node(used("d1", core_percent=400), name="n1")
    asks = [pod(app(want(800, cores=60))), pod(app(want(4000)))]
    assert list(fits([small, wide], *asks)) == ["ask 0", "ask 1"], "six tenths of a card, and half of one"
    assert list(fits([wide, small], *asks)) == ["ask 1", "ask 0"], "half of a card, and less than a sixth"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is planned from now on: the node of each plan."""
    planned, fit = [], seats.fit

    def counting(ask: Ask, state: NodeState) -> object:
        planned.append(str(state.name))
        return fit(ask, state)

    monkeypatch.setattr(seats, "fit", counting)
    return planned


def test_plans_are_shared_out_evenly_and_never_more_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's share is spent by those before him, what they leave is there for him."""
    nodes = [node(used("d0", mem_mib=10_000 + number), name=f"n{number}") for number in range(30)]
    asks = [pod(app(want(size)), app(want(2000))) for size in (5000, 4000, 3000)]
    planned = counted(monkeypatch)
    found = finish(measure([Typical(str(number), ask, 1) for number, ask in enumerate(asks)], nodes, trials=30))
    assert len(planned) == 30
    assert [room.searched for room in found.rooms] == [5, 5, 3]  # 10 plans each; two a node, three of the smallest


def test_links_that_do_not_matter_are_planned_once_for_all_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node(used("d0"), name=f"n{number}") for number in range(9)]
    planned = counted(monkeypatch)
    both = pod(init(want(1)), app(want(8000)))
    assert fits(nodes, both) == {"ask 0": 9}
    assert set(planned) == {"n0"}


def test_what_blocks_most_memory_is_told_first() -> None:
    cards = (used("d0", 10, 1000), used("d1", 1, 5000), used("d2", 1, 5000), used("d3", 1, 1500, 90))
    (room,) = finish(measure([Typical("t", pod(app(want(4000, cores=20))), 1)], [node(*cards)])).rooms
    assert [(one.reason, one.cards, one.free_mem_mib) for one in room.stuck] == [
        (Reason.SLOTS_EXHAUSTED, 1, 7000),
        (Reason.INSUFFICIENT_CORE, 1, 6500),
        (Reason.INSUFFICIENT_MEMORY, 2, 6000),
    ]


def test_the_larger_of_two_asks_counts_every_card_it_takes() -> None:
    nodes = [node(used("d0"), used("d1"), used("d2"), used("d3"))]
    one, small = Typical("one", pod(app(want(6000))), 1), Typical("small", pod(app(want(500, cards=4))), 1)
    four = Typical("four", pod(app(want(1600, cards=4))), 1)
    assert [room.name for room in finish(measure([small, one, four], nodes)).rooms] == ["four", "one", "small"]


def test_nothing_is_asked_and_nothing_is_fragmented() -> None:
    assert finish(measure([], [node(used("d0"))])).percent == 0
    assert finish(measure([Typical("t", PLAIN, 0)], [])).percent == 0
