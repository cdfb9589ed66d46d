"""Memory for what strangers send, without sockets: who gives way to whom, and that never more is held than there is."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hami.scheduler.edge import room as rooms
from hami.scheduler.edge.room import Body, GaveWay, Room
from hami.scheduler.edge.share import gives_way


class One:
    def __init__(self, peer: str, weight: int = 1) -> None:
        self.peer = peer
        self.weight = weight


def first(*kept: One) -> One | None:
    return gives_way(kept, lambda one: one.weight)


def test_nobody_gives_way_where_nobody_is() -> None:
    assert first() is None


def test_of_equals_the_one_that_came_first_gives_way() -> None:
    old, new = One("a"), One("b")
    assert first(old, new) is old
    assert first(new, old) is new


def test_a_peer_with_less_than_the_mean_does_not_give_way() -> None:
    server, strangers = One("server"), [One("pod") for _ in range(3)]
    assert first(server, *strangers) is strangers[0]
    assert first(One("server", 2), One("pod", 3)).weight == 3  # type: ignore[union-attr]
    assert first(One("server", 3), One("pod", 3)).peer == "server"  # type: ignore[union-attr]


def test_who_has_no_more_than_anybody_may_counts_as_having_that() -> None:
    few = [One("a", 1), One("b", 1), One("c", 3)]
    assert gives_way(few, lambda one: one.weight, 2).peer == "c"  # type: ignore[union-attr]
    assert gives_way(few, lambda one: one.weight, 3).peer == "a"  # type: ignore[union-attr]


def test_a_peer_with_the_mean_may_have_to() -> None:
    assert first(One("a", 2), One("b", 2), One("c", 2)).peer == "a"  # type: ignore[union-attr]


def fed(*chunks: bytes) -> Callable[[], Awaitable[bytes]]:
    waiting = [*chunks, b""]

    async def more() -> bytes:
        await asyncio.sleep(0)
        return waiting.pop(0)

    return more


async def never() -> bytes:
    await asyncio.Event().wait()
    return b""


def stalled(*chunks: bytes) -> Callable[[], Awaitable[bytes]]:
    """Brings these, and then nothing for good."""
    waiting = list(chunks)

    async def more() -> bytes:
        return waiting.pop(0) if waiting else await never()

    return more


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_body_comes_out_as_it_came_in() -> None:
    room, body = Room(), Body("a")
    assert await room.read(body, fed(b"one ", b"two")) == b"one two"
    assert (len(room), room.taken) == (1, 7)
    room.leave(body)
    room.leave(body)
    assert (len(room), room.taken, room._free) == (0, 0, rooms.BYTES)


async def test_there_is_always_room_for_two_of_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "BYTES", 10)
    assert Room(largest=4)._free == 10
    assert Room(largest=6)._free == 12


async def test_who_waits_for_those_that_are_answered_is_read_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are whole: none of them gives way, nor does who comes."""
    monkeypatch.setattr(rooms, "BYTES", 10)
    room, answered, body = Room(), Body("a"), Body("b")
    await room.read(answered, fed(b"12345678"))
    reading = asyncio.create_task(room.read(body, fed(b"12", b"345")))
    await settled()
    assert not reading.done()
    room.leave(answered)
    assert await reading == b"12345"


async def test_who_waits_for_a_place_is_read_when_there_is_one_and_not_too_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "BODIES", 2)
    room, answered = Room(), [Body("a"), Body("a")]
    for one in answered:
        await room.read(one, fed(b"1"))
    waiting = [asyncio.create_task(room.read(Body("b"), fed(b"2"))) for _ in range(2)]
    await settled()
    with pytest.raises(GaveWay):
        await room.read(Body("b"), fed(b"3"))
    for one in answered:
        room.leave(one)
    assert await asyncio.gather(*waiting) == [b"2", b"2"]


async def test_one_that_breaks_off_while_it_waits_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "BYTES", 10)
    room, answered, body = Room(), Body("a"), Body("b")
    await room.read(answered, fed(b"12345678"))
    reading = asyncio.create_task(room.read(body, fed(b"123")))
    await settled()
    reading.cancel()
    await asyncio.wait({reading})
    room.leave(body)
    room.leave(answered)
    assert (room._waiting, room._free, len(room)) == ([], 10, 0)


async def test_who_has_no_room_for_its_next_bytes_may_be_the_one_that_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "BYTES", 10)
    room, hog, other = Room(), Body("a"), Body("b")
    reading = asyncio.create_task(room.read(other, stalled(b"12")))
    await settled()
    with pytest.raises(GaveWay):
        await room.read(hog, fed(b"12345678", b"9"))
    assert (room.taken, room._free) == (2, 8)
    reading.cancel()


async def test_one_of_the_largest_finds_room_beside_slow_ones_of_many_addresses() -> None:
    """Each of which holds a little less than the mean would be with it."""
    room, size = Room(largest=3 << 20), 1056768
    slow = [asyncio.create_task(room.read(Body(f"slow {index}"), stalled(bytes(size)))) for index in range(63)]
    await settled()
    assert room.taken == 63 * size
    text = await room.read(Body("server"), fed(*(bytes(1 << 16) for _ in range(48))))
    assert len(text) == 3 << 20
    assert [one.done() for one in slow] == [True, True, True] + 60 * [False]  # those that came first
    for one in slow:
        one.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_who_comes_has_the_place_of_a_slow_one_at_once_and_that_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else has to leave for that. What the slow one had sent is kept no longer."""
    monkeypatch.setattr(rooms, "BODIES", 2)
    room, slow = Room(), [Body("a"), Body("b")]
    reading = [asyncio.create_task(room.read(one, stalled(b"12"))) for one in slow]
    await settled()
    comes = Body("c")
    assert await asyncio.wait_for(room.read(comes, fed(b"345")), 30) == b"345"
    with pytest.raises(GaveWay):
        await reading[0]
    assert (slow[0].chunks, slow[1].chunks, comes.chunks) == ([], [b"12"], [])
    reading[1].cancel()


async def test_a_fault_of_who_brings_the_body_is_not_taken_for_giving_way() -> None:
    async def late() -> bytes:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await Room().read(Body("a"), late)


async def test_a_time_limit_of_the_caller_s_is_not_taken_for_giving_way() -> None:
    room, body = Room(), Body("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await room.read(body, never)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 6), max_size=4), st.booleans()), max_size=12))
async def test_whoever_comes_no_more_is_held_than_there_is(
    comers: list[tuple[str, list[int], bool]],
) -> None:
    room = Room()
    room._free, whole = 24, []
    most = 0

    async def one(body: Body, sizes: list[int], stalls: bool) -> None:
        nonlocal most
        try:
            text = await room.read(body, (stalled if stalls else fed)(*(bytes(size) for size in sizes)))
        except GaveWay:
            return
        finally:
            most = max(most, room.taken)
            assert room.taken + room._free == 24
            room.leave(body)
        whole.append((body, len(text), sum(sizes)))

    tasks = [asyncio.create_task(one(Body(peer), sizes, stalls)) for peer, sizes, stalls in comers]
    await settled()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most <= 24
    assert all(got == sent for _, got, sent in whole)
    assert (room._free, len(room), room._waiting) == (24, 0, [])
