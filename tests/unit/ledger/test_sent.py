"""Names kept as bytes are the same names as strings; what is not written plainly is left to JSON."""

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hami.ledger.sent import Sent

NAMES = [f"node-{number:04d}" for number in range(40)]

LISTS = st.lists(st.text(st.sampled_from('ab",\\:é\x1f\x7f '), min_size=7, max_size=9), max_size=4)
ALIKE = st.integers(8, 20).flatmap(
    lambda size: st.lists(st.text(st.sampled_from("ab,:[.-"), min_size=size, max_size=size), min_size=1)
)
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["", ",", "abcdefgh", ",abcdefg", "abcdefg,", "[abcdef]"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["abcdefgh", ","]), inner, max_size=2),
)


def sent(names: list[str]) -> Sent:
    found = Sent.of(msgspec.json.encode(names))
    assert found is not None
    return found


@given(VALUES | LISTS | ALIKE)
@example(["abcdefgh", 1, "abcdef"])
@example(["abcdefgh", "abcdef", 1])
@example(["abcdefghi", "ab", "cdef"])
@example({"abcdefgh": "abcdefgh"})
@example('"abcdefgh",')
@example(["abcdefg\\"])
@example(["abcdefgé"])
def test_a_value_is_read_as_the_names_it_has_or_not_at_all(value: object) -> None:
    listed = msgspec.json.encode(value)
    found = Sent.of(listed)
    assert found is None or (list(found), len(found), found.json()) == (value, len(list(found)), listed)


@given(ALIKE)
def test_plain_names_of_one_length_are_read_and_parted(names: list[str]) -> None:
    found = sent(names)
    assert len(found) == len(names)
    assert [found[place] for place in range(len(names))] == names
    assert found[-1] == names[-1]
    assert found[1:3] == names[1:3]
    some = np.arange(0, len(names), 2)
    assert list(found.at(some)) == names[::2]
    assert found.at(some).json() == msgspec.json.encode(names[::2])


@given(ALIKE, st.text(max_size=5))
def test_the_same_is_said_of_each_name_without_a_string_a_name(names: list[str], text: str) -> None:
    found = sent(names)
    members = found.each(msgspec.json.encode(text)) + found.at(np.arange(1, len(names), 2)).each(b"7")
    told = msgspec.json.decode(b"{" + members[:-1] + b"}")
    assert told == dict.fromkeys(names, text) | dict.fromkeys(names[1::2], 7)


@pytest.mark.parametrize(
    "listed",
    [
        b"",
        b"null",
        b"[]",
        b'["seven77"]',
        b'["abcdefgh", "abcdefgh"]',
        b'[ "abcdefgh"]',
        '["abcdefgé"]'.encode(),
        b'["abcdef\\\\"]',
        b'["abcdefg\x1f"]',
    ],
)
def test_what_is_short_or_not_plain_is_not_read(listed: bytes) -> None:
    assert Sent.of(listed) is None


def test_a_blank_is_plain() -> None:
    assert list(sent(["abcd efgh"])) == ["abcd efgh"]


def test_no_name_at_all_is_an_empty_list() -> None:
    none = sent(NAMES).at(np.array([], np.int64))
    assert (len(none), list(none), none.json(), NAMES[0] in none) == (0, [], b"[]", False)


@given(st.text(st.sampled_from('no,de-0"é'), max_size=10) | st.sampled_from(NAMES) | st.just(7))
@example('","node-0')
@example("node-000")
@example("ode-00000")
@example(',"node-0001')
@example("\ud800ode-0001")
def test_a_name_is_among_them_as_among_strings(name: object) -> None:
    assert (name in sent(NAMES)) == (name in NAMES)


@pytest.mark.parametrize("length", [8, 9, 15, 16, 17, 23, 24])
def test_words_are_the_bytes_of_each_name_and_zero_behind(length: int) -> None:
    names = [f"{number:0{length}d}" for number in range(5)]
    for width in range(1, 5):
        found = sent(names).words(width)
        spelled = [name.encode().ljust(32, b"\0")[: 8 * width] for name in names]
        assert [found[:, place].tobytes() for place in range(5)] == spelled


def test_names_that_begin_with_a_comma_or_end_with_one_are_names() -> None:
    odd = [",bcdefgh", "abcdefg,", "a,b,c,d,"]
    assert list(sent(odd)) == odd
