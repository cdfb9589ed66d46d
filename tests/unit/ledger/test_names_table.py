"""The table of names: how large it is, how seldom names meet in it, and which names are read in one piece."""

import sys
from collections.abc import Sequence

import numpy as np
import pytest

from hami.ledger.names import _FACTORS, FEW, LONGEST, ROOMY, Names, Table
from hami.ledger.spelled import Spelled

from .test_names import by_dictionary, numbered


def rows_of(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


@pytest.mark.parametrize(("names", "made"), [(FEW - 1, False), (FEW, False), (FEW + 1, True)])
def test_few_names_have_no_table(names: int, made: bool) -> None:
    assert (Names(rows_of(numbered(names)))._table is not None) == made


@pytest.mark.parametrize(("asked", "by_table"), [(1, False), (FEW, False), (FEW + 1, True)])
def test_few_names_are_looked_up_in_the_dictionary(asked: int, by_table: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, looked = rows_of(numbered(2 * FEW)), []
    names = Names(rows)
    find = Table.find
    monkeypatch.setattr(Table, "find", lambda table, some: looked.append(len(some)) or find(table, some))
    assert names.rows(list(rows)[:asked]).tolist() == list(range(asked))
    assert looked == [asked] * by_table


@pytest.mark.parametrize("count", [257, 511, 512, 513, 5000])
def test_the_table_has_roomy_places_and_uses_all_of_it(count: int) -> None:
    table = Table(rows_of(numbered(count)))
    assert ROOMY * count <= len(table._places) < 2 * ROOMY * count
    assert table._own.shape == (2, count), "two words a name, a column a row"
    taken = np.flatnonzero(table._places >= 0)
    assert taken.min() < len(table._places) // 8
    assert taken.max() > len(table._places) * 7 // 8


@pytest.mark.parametrize("form", ["gpu-node-{:05}", "a100-{:05}"])  # the first way is the best for these, not for those
@pytest.mark.parametrize("count", [700, 1500, 3000, 5000])
def test_of_eight_ways_the_one_is_taken_by_which_fewest_names_meet(count: int, form: str) -> None:
    names = [form.format(number) for number in range(count)]
    table = Table(rows_of(names))
    words = Spelled(names).words(table._width)
    apart = [len(set(table._hash(words, one).tolist())) for one in _FACTORS]
    assert _FACTORS.shape == (8, 32), "a factor for each word of the longest name"
    assert (table._places >= 0).sum() == max(apart) > min(apart)
    rows, unsure = table.find(names)
    assert len(unsure) == len(names) - max(apart) < count // 50
    sure = np.setdiff1d(np.arange(count), unsure)
    assert rows[sure].tolist() == sure.tolist()


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["ab", "cd", "ef"], True),
        (["a"], True),
        (["", ""], True),
        (["gpu-node-00001", "gpu-node-00002"], True),
        (["sixteen-letters-", "sixteen-or-what-"], True),
        (["nine-char", "nine-more"], True),
        (["ab", "c", "ef"], False),
        (["ab", "c", "def"], False),  # as long in all as if they were of one length
        (["ab", "cde", "f"], False),
        (["ab", "c", ""], False),
        (["abcdefgh", "abcdefghi", "", "x" * 40], False),
    ],
)
def test_names_are_words_of_their_bytes_and_zeros(names: list[str], alike: bool) -> None:
    spelled = Spelled(names)
    assert (spelled._step is not None) == alike
    for width in (1, 2, 3):
        said = [name.encode()[: 8 * width].ljust(8 * width, b"\0") for name in names]
        assert [spelled.words(width)[:, place].tobytes() for place in range(len(names))] == said


@pytest.mark.parametrize("names", [["a\0b", "cd"], ["ab", "c\0"], ["ab", "cd\0e", ""], ["\0"], ["nöde", "node"]])
def test_what_no_name_of_ours_can_be_is_not_spelled(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"zero byte|ascii"):
        Spelled(names).words(1)


def test_names_behind_one_with_zero_bytes_are_told_apart_all_the_same() -> None:
    rows = rows_of(numbered(2 * FEW))
    own = list(rows)
    asked = [own[0], f"{own[1]}\0{own[2][:-1]}", own[3], *own, ""]
    assert Names(rows).rows(asked).tolist() == by_dictionary(rows, asked)


def test_longer_names_of_one_length_that_begin_like_ours_are_others() -> None:
    rows = rows_of(f"node-{number:011}" for number in range(2 * FEW))  # 16 bytes
    for more in ("x", "x" * 7, "x" * 8, "x" * 30):
        asked = [name + more for name in rows]
        assert Names(rows).rows(asked).tolist() == by_dictionary(rows, asked) == [-1] * len(rows)


@pytest.mark.parametrize("last", [2**15 - 1, 2**15, 2**15 + 1, 2**16 + 5])
def test_rows_of_the_largest_clusters_have_their_numbers(last: int) -> None:
    rows = rows_of(numbered(2 * FEW)) | {"gpu-node-99999": last}
    assert Names(rows).rows(list(rows)).tolist() == list(rows.values())
    assert last in Table(rows)._places, "and are not left to the dictionary"


@pytest.mark.parametrize(("length", "table"), [(LONGEST - 1, True), (LONGEST, False)])
def test_one_name_that_is_too_long_leaves_all_to_the_dictionary(length: int, table: bool) -> None:
    names = Names(rows_of([*numbered(2 * FEW), "x" * length]))
    assert (names._table is not None) == table


def test_a_place_is_the_highest_bits_of_the_sum_of_words_that_differ_each_times_its_odd_number() -> None:
    names = numbered(2 * FEW)
    table = Table(rows_of(names))
    words = Spelled(names).words(table._width)
    assert table._alike == [int.from_bytes(b"gpu-node", sys.byteorder), None]
    bits = len(table._places).bit_length() - 1
    for factors in _FACTORS:
        assert (factors % 2 == 1).all()
        sums = [int(own[1]) * int(factors[1]) % 2**64 for own in words.T]
        assert table._hash(words, factors).tolist() == [one >> 64 - bits for one in sums]


def test_of_words_that_differ_each_counts_and_those_alike_are_compared_all_the_same() -> None:
    rows = rows_of(f"{number % 7:08}same-all{number // 7:08}" for number in range(2 * FEW))
    table = Table(rows)
    assert table._alike == [None, int.from_bytes(b"same-all", sys.byteorder), None, 0]
    words = Spelled(list(rows)).words(table._width)
    sums = [
        (int(own[0]) * int(table._factors[0]) + int(own[2]) * int(table._factors[2])) % 2**64 >> int(table._shift)
        for own in words.T
    ]
    assert table._hash(words, table._factors).tolist() == sums
    others = [name.replace("same", "sAme") for name in rows]
    assert Names(rows).rows([*others, *rows]).tolist() == [-1] * len(rows) + list(rows.values())
