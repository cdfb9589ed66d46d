"""Names to rows by a table is what a dictionary says, whatever the names are."""

from random import Random

import msgspec
import numpy as np
import pytest
from tests.unit.plan.builders import node, used

from hami.ledger.index import Index
from hami.ledger.names import FEW, LONGEST, Names
from hami.ledger.sent import Sent
from hami.model.ids import NodeName

MANY = 3 * FEW


def numbered(count: int) -> list[str]:
    return [f"gpu-node-{number:05d}" for number in range(count)]


def drawn(random: Random, count: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-."
    return list({"".join(random.choices(letters, k=random.randrange(1, 60))) for _ in range(count)})


def by_dictionary(rows: dict[str, int], names: list[str]) -> list[int]:
    return [rows.get(name, -1) for name in names]


@pytest.mark.parametrize("seed", range(6))
def test_every_name_gets_its_row_and_every_other_name_none(seed: int) -> None:
    random = Random(seed)
    own = numbered(MANY) if seed % 2 else drawn(random, MANY)
    numbers = random.sample(range(2 * len(own)), len(own))
    rows = dict(zip(own, numbers, strict=True))
    near = [name[:-1] for name in own[:50]] + [f"{name}x" for name in own[:50]] + [f"x{name}" for name in own[:50]]
    asked = [*own, *near, *drawn(random, 300), "", "x" * 300, own[0]]
    random.shuffle(asked)
    names = Names(rows)
    assert names._table is not None
    assert names.rows(asked).tolist() == by_dictionary(rows, asked)
    assert names.rows(asked[: FEW // 2]).tolist() == by_dictionary(rows, asked[: FEW // 2])


def test_names_that_meet_on_one_place_of_the_table_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hami.ledger.names.ROOMY", 1)
    rows = {name: row for row, name in enumerate(drawn(Random(1), MANY))}
    names = Names(rows)
    assert names._table is not None
    rows_found, unsure = names._table.find(list(rows))
    assert len(unsure) > MANY // 20
    assert (rows_found[unsure] != unsure).all()
    assert names.rows(list(rows)).tolist() == list(rows.values())


def test_names_that_would_make_up_others_of_one_length_are_told_apart() -> None:
    """Cut into pieces of the first one's length, the names as a whole are names of ours."""
    rows = {f"{number:03}": number for number in range(MANY)}
    asked = ["000", *(["00", "1002"] * FEW), "003"]
    assert Names(rows).rows(asked).tolist() == by_dictionary(rows, asked)
    other = ["000", *["00\x000010"] * FEW, "003"]
    assert Names(rows).rows(other).tolist() == by_dictionary(rows, other)


def test_a_longer_name_that_begins_like_one_of_ours_is_another() -> None:
    rows = {f"{'n' * 60}{number:03}": number for number in range(MANY)}
    asked = [f"{name}{'z' * (number % 20)}" for number, name in enumerate(rows)]
    assert Names(rows).rows(asked).tolist() == by_dictionary(rows, asked)


@pytest.mark.parametrize("strange", ["gpu-nöde", "x" * LONGEST])
def test_a_name_the_table_cannot_hold_is_found_all_the_same(strange: str) -> None:
    rows = {name: row for row, name in enumerate([*numbered(MANY), strange])}
    assert Names(rows).rows(list(rows)).tolist() == list(rows.values())
    del rows[strange]
    assert Names(rows).rows([strange, *rows]).tolist() == [-1, *rows.values()]


@pytest.mark.parametrize("length", [14, 16, 24, 25, 40])
def test_names_as_they_were_sent_have_the_rows_of_the_same_strings(length: int) -> None:
    rows = {f"node-{number:0{length - 5}d}": row for row, number in enumerate(Random(3).sample(range(9999), MANY))}
    asked = Random(4).sample(list(rows), MANY)
    asked[7], asked[70], asked[77] = "x" * length, asked[7][:-1] + "x", "x" + asked[7][1:]
    sent = Sent.of(msgspec.json.encode(asked))
    assert sent is not None
    names = Names(rows)
    assert names.rows(sent).tolist() == names.rows(asked).tolist() == by_dictionary(rows, asked)
    few = sent.at(np.arange(9))
    assert names.rows(few).tolist() == by_dictionary(rows, asked[:9])


@pytest.mark.parametrize("length", [8, 30, 300])
def test_sent_names_longer_or_shorter_than_ours_have_no_row(length: int) -> None:
    rows = {f"node-{number:010d}": number for number in range(MANY)}
    sent = Sent.of(msgspec.json.encode([f"node-{number:010d}".ljust(length, "0")[:length] for number in range(MANY)]))
    assert sent is not None
    assert Names(rows).rows(sent).tolist() == [-1] * MANY


def test_few_names_one_and_none() -> None:
    rows = {name: row for row, name in enumerate(numbered(MANY))}
    for asked in ([], ["gpu-node-00007"], ["nobody"], ["nobody", "gpu-node-00001"]):
        assert Names(rows).rows(asked).tolist() == by_dictionary(rows, asked)
    assert Names({}).rows(["a"] * MANY).tolist() == [-1] * MANY


def test_an_index_follows_nodes_that_come_and_go() -> None:
    index, asked = Index(), numbered(MANY)
    for name in asked:
        index.put(node(used(f"{name}/0"), name=name))
    assert index.rows_of(asked).tolist() == list(range(MANY))
    index.drop(NodeName(asked[5]))
    assert index.rows_of(asked)[5] == -1
    index.put(node(used("late/0"), name="late"))
    assert index.rows_of(["late", *asked])[[0, 6, 7]].tolist() == [5, -1, 6]
