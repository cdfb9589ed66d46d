"""The table of names: how large it is, how seldom names meet in it, and which names are read in one piece."""

from collections.abc import Sequence

import numpy as np
import pytest

from hami.ledger import names as module
from hami.ledger.names import _FACTORS, FEW, ROOMY, Names, Table, _of_one_length

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


@pytest.mark.parametrize("count", [700, 1500, 3000, 5000])
def test_of_eight_ways_the_one_is_taken_by_which_fewest_names_meet(count: int) -> None:
    names = numbered(count)
    table = Table(rows_of(names))
    words = table._words(names)
    apart = [len(set(table._hash(words, one[: words.shape[1]]).tolist())) for one in _FACTORS]
    assert _FACTORS.shape == (8, 32), "a factor for each word of the longest name"
    assert (table._places >= 0).sum() == max(apart) > min(apart)
    rows, unsure = table.find(names)
    assert len(unsure) == len(names) - max(apart) < count // 50
    sure = np.setdiff1d(np.arange(count), unsure)
    assert rows[sure].tolist() == sure.tolist()


@pytest.mark.parametrize(
    ("names", "cells"),
    [
        (["ab", "cd", "ef"], [b"ab", b"cd", b"ef"]),
        (["a"], [b"a"]),
        (["", ""], [b"", b""]),
        (["ab", "c", "ef"], None),
        (["ab", "c", "def"], None),  # as long in all as if they were of one length
        (["ab", "cde", "f"], None),
    ],
)
def test_names_of_one_length_are_read_in_one_piece(names: list[str], cells: list[bytes] | None) -> None:
    found = _of_one_length(names)
    assert (found if found is None else found.tolist()) == cells


@pytest.mark.parametrize(
    ("first", "last", "tried"), [(10, 10, True), (10, 11, False), (11, 10, False), (16, 16, False), (40, 40, False)]
)
def test_it_is_tried_where_the_first_and_the_last_are_alike_and_no_longer_than_a_name_of_ours_may_be(
    first: int, last: int, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(numbered(2 * FEW))  # of 14 bytes: two words
    table, asked, given = Table(rows), ["x" * first, *list(rows)[:3], "y" * last], []
    monkeypatch.setattr(module, "_of_one_length", given.append)
    assert table.find(asked)[0].tolist()[1:4] == [0, 1, 2]
    assert given == [asked] * tried


def test_longer_names_of_one_length_that_begin_like_ours_are_others() -> None:
    rows = rows_of(f"node-{number:011}" for number in range(2 * FEW))  # 16 bytes
    for more in ("x", "x" * 7, "x" * 8, "x" * 30):
        asked = [name + more for name in rows]
        assert Names(rows).rows(asked).tolist() == by_dictionary(rows, asked) == [-1] * len(rows)
