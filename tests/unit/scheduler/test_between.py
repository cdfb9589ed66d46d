"""Between decisions: garbage never waits for a decision to pay for it, and never grows without bound."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from hami.ledger.cluster import Ledger
from hami.scheduler.edge.routes import Route
from hami.scheduler.edge.serve import Edge
from hami.scheduler.loop.between import MIDDLE, NET, OLD, READING, SELDOM, SELDOM_AT_WORK, YOUNG, Between
from hami.scheduler.meters import Meters


class Knot:
    """Garbage that only the collector can find. `alive` counts those that are there."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Knot.alive += 1

    def __del__(self) -> None:
        Knot.alive -= 1


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    before = gc.get_threshold()
    Knot.alive = 0
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    gc.collect()


@pytest.fixture
def between() -> Between:
    found = Between(Ledger())
    found.begin()
    found.settle()
    return found


@pytest.fixture
def passes() -> Iterator[list[int]]:
    """The generation of each collection."""
    seen: list[int] = []

    def note(phase: str, of: dict[str, int]) -> None:
        if phase == "start":
            seen.append(of["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def tie(knots: int) -> None:
    for _ in range(knots):
        Knot()


def test_garbage_of_decisions_never_is_more_than_that_of_a_few(between: Between) -> None:
    for _ in range(200):
        tie(100)
        between.answered()
        assert Knot.alive <= YOUNG + 100


def test_nothing_is_collected_while_a_decision_is_made(between: Between, passes: list[int]) -> None:
    for _ in range(50):
        before = len(passes)
        tie(300)
        assert len(passes) == before
        between.answered()


def test_whoever_has_made_little_since_pays_nothing_between(between: Between, passes: list[int]) -> None:
    between.answered()
    passes.clear()
    tie(YOUNG // 4)
    between.answered()
    assert passes == []


def test_the_middle_generation_is_collected_as_often_as_python_would(between: Between, passes: list[int]) -> None:
    for _ in range(MIDDLE + 2):
        tie(YOUNG + 1)
        between.answered()
    assert passes == [0] * (MIDDLE + 1) + [1]


def test_a_scheduler_that_is_never_called_falls_into_the_net(between: Between) -> None:
    for _ in range(10):
        tie(NET[0])
        assert Knot.alive <= 2 * NET[0]


def grown_old() -> Knot:
    """Garbage in the oldest generation, as soon as nobody holds it any more."""
    knot = Knot()
    for _ in range(OLD + 1):
        gc.collect(1)
    return knot


def test_old_garbage_goes_when_nobody_asks_anything(between: Between) -> None:
    knot = grown_old()
    del knot
    gc.collect(1)
    assert Knot.alive == 1
    between._took = 0.0
    between.idle()
    assert Knot.alive == 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("asked", "times"), [(False, SELDOM), (True, SELDOM_AT_WORK)])
def test_a_whole_collection_takes_a_small_part_of_all_time_and_less_while_somebody_asks(
    asked: bool, times: int, passes: list[int]
) -> None:
    clock = Clock()
    between = Between(Ledger(), clock)
    between.settle()
    between._took = 0.25
    for elapsed, due in ((0.25 * times - 0.01, False), (0.25 * times, True)):
        grown_old()
        passes.clear()
        clock.now = elapsed
        if asked:
            between.answered()
        passes.clear()
        between.idle()
        assert passes == ([2] if due else [])


def test_without_survivors_of_the_middle_generation_there_is_no_whole_collection(
    between: Between, passes: list[int]
) -> None:
    between._took = 0.0
    passes.clear()
    between.idle()
    assert passes == []


def test_what_was_read_is_gone_through_once_and_never_again(passes: list[int]) -> None:
    between = Between(Ledger())
    before = gc.get_threshold()
    between.begin()
    assert gc.get_threshold() == READING
    kept = [Knot() for _ in range(10)]
    assert between.settle()
    assert gc.get_freeze_count() > 10
    assert gc.get_threshold() == NET
    assert passes.count(2) == 1
    assert not between.settle()
    assert passes.count(2) == 1
    between.end()
    assert gc.get_threshold() == before
    assert len(kept) == Knot.alive


async def test_an_answer_has_gone_out_before_anything_is_done_about_it(stage: Any) -> None:
    told: list[str] = []
    meters: Meters = stage.engine.meters
    edge = Edge(
        {("POST", "/x"): Route("x", lambda _: b"{}", 100)},
        {},
        meters,
        clients=None,
        body_timeout=1.0,
        answered=lambda: told.append("between"),
    )
    server = web.Server(edge)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    for _ in range(2):
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        await reader.readuntil(b"\r\n\r\n")
        told.append("answer")
        await asyncio.sleep(0.05)
    writer.close()
    await runner.cleanup()
    assert told == ["answer", "between"] * 2
