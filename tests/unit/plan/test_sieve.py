"""A sieve that follows the columns is one made anew, whatever changed meanwhile, and looks at nothing twice."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings

from hami.model.refusal import Reason
from hami.plan.fleet.columns import Columns
from hami.plan.fleet.sieve import NEVER, Sieve, Sieves
from hami.plan.fleet.tally import AFTER_MEMORY, FIRST, LEFT

from . import builders as make
from .builders import node, used, want


@settings(max_examples=100, deadline=None)
@given(make.SEEDS)
def test_a_sieve_that_follows_is_as_one_made_anew(seed: int) -> None:
    random, columns, sieves = Random(seed), Columns(rows=1, cards=1), Sieves()
    asks = [(make.random_want(random), random.random() < 0.4) for _ in range(3)]
    for _ in range(12):
        row, state = random.randrange(6), make.random_node(random, "n", most=4)
        if columns.registered[row : row + 1].any() and random.random() < 0.6:
            columns.write_use(row, 0, used("d0", random.randrange(3), random.randrange(9), random.randrange(101)))
        else:
            columns.write(row, state if random.random() < 0.9 else None)
        ask, idle_only = random.choice(asks)
        kept, fresh = sieves.of(columns, ask, idle_only), Sieves().of(columns, ask, idle_only)
        assert np.array_equal(kept.free[:, : columns.rows], fresh.free[:, : columns.rows])
        assert np.array_equal(kept.first[:, : columns.rows], fresh.first[:, : columns.rows])


def test_only_rows_that_changed_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, sieves, looked = Columns(), Sieves(), []
    for row in range(9):
        columns.write(row, node(used(f"d{row}")))
    look = Sieve._look
    monkeypatch.setattr(Sieve, "_look", lambda own, cut, rows: looked.append(rows) or look(own, cut, rows))
    for mem in (1, 500, 9000):
        sieves.of(columns, want(mem, cores=10), False)
    assert looked == [slice(9)], "memory makes no other sieve"
    columns.write_use(4, 0, used("d4", 1, 8000, 100))
    assert (sieves.of(columns, want(1, cores=10), False).free[0] == NEVER).tolist()[3:6] == [False, True, False]
    assert [rows.tolist() for rows in looked[1:]] == [[4]]


def test_no_more_than_so_many_sieves_are_kept_the_latest_used_last() -> None:
    columns, sieves = Columns(), Sieves()
    columns.write(0, node(used("d0")))
    first = [sieves.of(columns, want(1, cores=cores), False) for cores in range(Sieves.SIZE)]
    assert sieves.of(columns, want(1, cores=0), False) is first[0]
    sieves.of(columns, want(1, cores=99), False)
    assert sieves.of(columns, want(1, cores=0), False) is first[0]
    assert sieves.of(columns, want(1, cores=1), False) is not first[1]
    assert len(sieves._kept) == Sieves.SIZE


@pytest.mark.parametrize(("nodes", "changed", "everything"), [(9, 2, False), (9, 3, True), (8, 2, False), (9, 6, True)])
def test_where_a_third_has_changed_all_are_looked_at(
    nodes: int, changed: int, everything: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, sieves, looked = Columns(), Sieves(), []
    for row in range(nodes):
        columns.write(row, node(used(f"d{row}")))
    sieves.of(columns, want(1), False)
    for row in range(changed):
        columns.write_use(row, 0, used(f"d{row}", 1, 5))
    look = Sieve._look
    monkeypatch.setattr(Sieve, "_look", lambda own, cut, rows: looked.append(rows) or look(own, cut, rows))
    sieves.of(columns, want(1), False)
    assert [isinstance(rows, slice) for rows in looked] == [everything]


def test_when_cards_have_changed_nothing_is_kept_of_how_they_were() -> None:
    columns, sieves = Columns(), Sieves()
    columns.write(0, node(used("d0")))
    before = [sieves.of(columns, want(1, cores=cores), False) for cores in (0, 10)]
    assert len(sieves._kept) == 2
    columns.write(0, node(used("d0"), used("d1")))
    assert sieves.of(columns, want(1), False) not in before
    assert len(sieves._kept) == 1


def test_what_a_card_is_refuses_before_what_is_left_on_it() -> None:
    columns = Columns()
    cards = (
        used("d0", slots=10, healthy=False), used("d1", slots=10, cordoned=True), used("d2", slots=10),
        used("d3", slots=1, cores=95), used("d4", slots=1, cores=100), used("d5"),
    )  # fmt: skip
    columns.write(0, node(*cards))
    some = Sieves().of(columns, want(1, cores=10), False)
    assert some.first[:, 0].tolist() == [
        FIRST[Reason.NOT_HEALTHY], FIRST[Reason.CORDONED], FIRST[Reason.SLOTS_EXHAUSTED],
        AFTER_MEMORY[Reason.INSUFFICIENT_CORE], AFTER_MEMORY[Reason.INSUFFICIENT_CORE], LEFT, 0, 0,
    ]  # fmt: skip
    assert (some.free[:, 0] == NEVER).tolist() == [True] * 5 + [False] + [True] * 2
