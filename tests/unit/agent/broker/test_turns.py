"""The page of turns: places are given out, taken back, and a dead holder's turn is free."""

import struct

import pytest

from hami.agent.broker.turns import ASKED, HOLDER, Turns
from hami.wire.broker import MEMBERS, TENANTS


@pytest.fixture
def turns():
    made = Turns()
    yield made
    made.close()


def word(turns: Turns, offset: int) -> int:
    return struct.unpack_from("<Q", turns._memory, offset)[0]


def put(turns: Turns, offset: int, value: int) -> None:
    struct.pack_into("<Q", turns._memory, offset, value)


def test_processes_of_one_container_are_one_tenant(turns):
    assert [turns.join("a"), turns.join("a"), turns.join("b")] == [0, 1, 2]
    assert (turns.tenant("a"), turns.tenant("b")) == (0, 1)


def test_places_are_used_again(turns):
    turns.join("a")
    turns.join("b")
    turns.leave(0)
    turns.leave(0)
    assert (turns.join("c"), turns.tenant("c"), len(turns)) == (0, 0, 2)


def test_a_full_page_gives_no_place_and_says_so(turns):
    assert [turns.join("a") for _ in range(MEMBERS)] == list(range(MEMBERS))
    assert turns.join("a") == -1
    turns.leave(17)
    assert turns.join("a") == 17


def test_no_more_tenants_than_there_is_room_for(turns):
    for number in range(TENANTS):
        turns.join(f"t{number}")
    assert turns.join("one more") == -1
    assert turns.join("t0") == TENANTS


def test_the_turn_of_who_has_died_is_free_and_he_asks_no_more(turns):
    member = turns.join("a")
    put(turns, HOLDER, 5 << 16 | member + 1)
    put(turns, ASKED + 8 * member, 12345)
    turns.leave(member)
    assert (word(turns, HOLDER), word(turns, ASKED + 8 * member)) == (6 << 16, 0)


def test_the_turn_of_another_is_left_alone(turns):
    one, two = turns.join("a"), turns.join("b")
    put(turns, HOLDER, 5 << 16 | two + 1)
    turns.leave(one)
    assert word(turns, HOLDER) == 5 << 16 | two + 1
