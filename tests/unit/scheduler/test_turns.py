"""Turns: one after the other as they came, whoever goes away, and a look at the sockets between two."""

import asyncio
import socket

import pytest

from hami.scheduler.loop.turns import Turns


class Counter:
    """Where people wait for their turn, and what was seen in which order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.seen: list[str] = []

    async def come(self, name: str) -> None:
        async with self.turns:
            self.seen.append(name)

    def all_come(self, names: str) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.come(name)) for name in names]


async def test_they_are_served_as_they_came() -> None:
    counter = Counter()
    await asyncio.gather(*counter.all_come("abcdef"))
    assert counter.seen == list("abcdef")


async def test_after_the_last_the_next_is_served_at_once() -> None:
    counter = Counter()
    for name in "abc":
        await counter.come(name)
        await asyncio.sleep(0)
    await asyncio.wait_for(counter.come("d"), 30)
    assert counter.seen == list("abcd")


async def test_the_loop_looks_at_its_sockets_between_two() -> None:
    """Who writes while the first is served is read before the second is, and served after those who came before."""
    counter = Counter()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    late: list[asyncio.Task[None]] = []

    def read() -> None:
        counter.seen.append(f"read {ours.recv(1).decode()}")
        late.extend(counter.all_come("c"))

    async def first() -> None:
        async with counter.turns:
            counter.seen.append("a")
            theirs.send(b"c")

    loop.add_reader(ours, read)
    try:
        await asyncio.gather(asyncio.create_task(first()), *counter.all_come("b"))
        await asyncio.gather(*late)
    finally:
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
    assert counter.seen == ["a", "read c", "b", "c"]


@pytest.mark.parametrize("gone", ["b", "c", "bc", "e"])
async def test_who_goes_away_while_he_waits_holds_nobody_up(gone: str) -> None:
    counter = Counter()
    tasks = dict(zip("abcde", counter.all_come("abcde"), strict=True))
    await asyncio.sleep(0)
    for name in gone:
        tasks[name].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks.values(), return_exceptions=True), 30)
    assert counter.seen == [name for name in "abcde" if name not in gone]


async def test_who_goes_away_when_it_is_his_turn_gives_it_to_the_next() -> None:
    counter = Counter()
    async with counter.turns:
        one, other = counter.all_come("bc")
        await asyncio.sleep(0)
    one.cancel()  # the turn is his, and he has not run yet
    await asyncio.wait_for(asyncio.gather(one, other, return_exceptions=True), 30)
    assert counter.seen == ["c"]


async def test_a_fault_in_a_turn_ends_only_that_turn() -> None:
    counter = Counter()

    async def fails() -> None:
        async with counter.turns:
            raise ValueError

    found = await asyncio.gather(asyncio.create_task(fails()), *counter.all_come("ab"), return_exceptions=True)
    assert isinstance(found[0], ValueError)
    assert counter.seen == ["a", "b"]
