"""The page of turns: places are given out, taken back, and a dead holder's turn is free."""

import struct

import pytest

from hami.agent.broker.turns import ASKED, FULL, HAD, HOLDER, TENANT_OF, USED, VIRTUAL, Turns
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


def test_a_tenant_has_as_many_places_as_it_leaves_to_all_others(turns):
    """Who takes no turns has the card by time slices: one with a thousand processes would do that to everybody."""
    many = [turns.join("many") for _ in range(MEMBERS)]
    assert many == [*range(MEMBERS // 2), *[-1] * (MEMBERS // 2)]
    other = [turns.join("other") for _ in range(MEMBERS)]
    assert other.count(-1) == MEMBERS - MEMBERS // 4
    assert turns.join("late") == 3 * MEMBERS // 4
    turns.leave(17)
    assert turns.join("late") == 17


def test_a_full_page_gives_no_place_and_says_so(turns):
    joined = 0
    while turns.join(f"t{joined // 8}") >= 0:
        joined += 1
    assert MEMBERS - joined < 8
    turns.leave(17)
    assert turns.join("new") == 17


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


def test_a_tenants_number_says_nothing_of_who_had_it_before(turns):
    """Whoever comes would wait until the others have had as much of the card as the one that has gone."""
    turns.join("a")
    member = turns.join("gone")
    tenant = turns.tenant("gone")
    words = [offset + 8 * tenant for offset in (FULL, VIRTUAL, USED)] + [HAD + 8 * member]
    for offset in (*words, VIRTUAL):
        put(turns, offset, 1 << 60)
    turns.leave(member)
    assert (turns.join("new"), turns.tenant("new")) == (member, tenant)
    assert [word(turns, offset) for offset in words] == [0, 0, 0, 0]
    assert word(turns, VIRTUAL) == 1 << 60  # of one that is there


def test_a_tenant_that_has_gone_uses_the_card_no_longer_and_one_of_whom_a_process_is_left_does(turns):
    """Who pays for nothing says so for two seconds to come: who may use idle time was held to his percent meanwhile."""
    first, second = turns.join("a"), turns.join("a")
    put(turns, USED, 1 << 60)
    turns.leave(first)
    assert word(turns, USED) == 1 << 60
    turns.leave(second)
    assert word(turns, USED) == 0


def test_a_tenants_next_process_goes_on_with_its_time_and_says_whose_it_is(turns):
    turns.join("a")
    turns.join("b")
    put(turns, VIRTUAL + 8, 77)
    member = turns.join("b")
    assert word(turns, VIRTUAL + 8) == 77
    assert struct.unpack_from("<H", turns._memory, TENANT_OF + 2 * member) == (1,)
