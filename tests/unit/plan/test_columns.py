"""Columns are what the cards make of them, however often and in whatever order they were written."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings

from hami.ledger.index import Index
from hami.plan.fleet.columns import (
    ABSENT,
    ANY_CPU,
    CELLS,
    CORDONED,
    FEW_ROWS,
    NO_SLOT,
    NO_UNITS,
    SICK,
    TOP,
    USED,
    USED_ALL,
    WRONG_ID,
    WRONG_TYPE,
    Columns,
)
from hami.plan.fleet.tally import MAX_CARDS, REASONS, TALLY_BITS, counts

from . import builders as make
from .builders import NVIDIA, card, node, used
from .cells import judge_row
from .migs import mig_card


@settings(max_examples=100, deadline=None)
@given(make.SEEDS)
def test_cells_say_what_the_cards_say_whatever_was_there_before(seed: int) -> None:
    random = Random(seed)
    columns = Columns(rows=1, cards=1)
    states = {}
    for _ in range(12):
        row, state = random.randrange(5), make.random_node(random, "n", most=5)
        states[row] = state
        columns.write(row, state)
    assert columns.rows == max(states) + 1
    for row, state in states.items():
        judge_row(columns, row, state)
    where = {}
    for row, state in sorted(states.items()):
        for place, one in enumerate(state.cards):
            where.setdefault(one.card.id, []).append((place, row))
    assert {card_id: sorted(places) for card_id, places in columns.places.items()} == {
        card_id: sorted(places) for card_id, places in where.items()
    }


def test_a_row_that_is_emptied_is_no_node_any_more() -> None:
    columns = Columns()
    columns.write(0, node(used("d0"), used("d1")))
    columns.write(0, None)
    assert not columns.registered[0]
    assert not columns.usable[0]
    assert not columns.mig[0]
    assert not columns.odd
    assert columns.node_score[0] == 0
    assert columns.places == {}


def test_versions_move_with_every_change_and_never_come_twice() -> None:
    columns = Columns()
    seen = set()
    state = node(used("d0"))
    for act in (
        lambda: columns.write(0, state),
        lambda: columns.write_use(0, 0, used("d0", 1, 5)),
        lambda: columns.write_host(0, 5.0),
        lambda: columns.write(0, None),
        lambda: columns.write(0, state),
    ):
        act()
        assert int(columns.version[0]) not in seen
        seen.add(int(columns.version[0]))
    assert columns.host_cpu[0] == 5.0


def test_the_inventory_moves_with_what_cards_are_and_not_with_what_is_used() -> None:
    columns = Columns()
    columns.write(0, node(used("d0")))
    before = columns.inventory
    columns.write_use(0, 0, used("d0", 1, 5))
    columns.write_host(0, 5.0)
    assert columns.inventory == before
    columns.write(0, node(used("d0", mem_mib=9000)))
    assert columns.inventory != before


def test_the_largest_card_and_whether_any_is_in_mig_mode() -> None:
    columns = Columns(rows=2, cards=1)
    assert (columns.largest, columns.any_mig) == (0, False)
    columns.write(0, node(used("d0"), used("d1", mem_mib=9000)))
    assert (columns.largest, columns.any_mig) == (9000, False)
    columns.write(5, node(make.CardState(mig_card())))
    assert (columns.largest, columns.any_mig) == (40960, True)
    columns.write(5, None)
    assert columns.any_mig is False


def test_absurd_sizes_are_cut_to_what_a_cell_holds() -> None:
    columns = Columns()
    columns.write(0, node(used("d0", mem=2**40, mem_mib=5)))
    columns.write(1, node(used("d0", mem_mib=2**40)))
    assert [int(columns.free_mem[0, row]) for row in (0, 1)] == [-TOP, TOP]


def test_a_tally_is_spelled_out_as_it_was_made() -> None:
    tally = sum((place + 1) << (TALLY_BITS * place) for place in range(len(REASONS)))
    assert counts(tally) == {reason: place + 1 for place, reason in enumerate(REASONS)}
    assert counts(0) == {}
    assert counts(MAX_CARDS) == {REASONS[0]: MAX_CARDS}


def test_new_columns_number_kinds_of_cards_alike() -> None:
    columns = Columns()
    columns.write(0, node(used("d0", model="A"), used("d1", model="B")))
    other = columns.empty(1)
    other.write(0, node(used("d1", model="B")))
    assert other.kind[0, 0] == columns.kind[1, 0]
    assert other.standing.shape == (len(columns.standing), 1)
    assert np.array_equal(other.kind[1:, 0], np.zeros(len(columns.standing) - 1))


def test_an_index_tells_row_and_rank_of_each_node() -> None:
    index = Index()
    for name in ("b", "c", "a"):
        index.put(node(used(card(f"{name}0").id), name=name))
    index.host(make.NodeName("c"), 5.0)
    index.drop(make.NodeName("c"))
    index.put(node(used("d0"), name="d"))
    assert index.columns.host_cpu[index.rows["d"]] == ANY_CPU, "nobody spoke of this host"
    ranks = {name: int(index.rank[row]) for name, row in index.rows.items()}
    assert sorted(ranks, key=lambda name: ranks[name]) == ["a", "b", "d"]
    assert index.find(make.NodeName("c")) is None
    assert [state.name for state in index.states()] == ["b", "d", "a"], "a freed row is used again"


def test_room_is_made_for_a_quarter_more_nodes_or_as_many_as_there_are_and_for_wider_ones_alone() -> None:
    columns = Columns(rows=4, cards=2)
    assert columns.rows == 0
    widths = []
    for row, cards in ((3, 2), (4, 2), (7, 3), (8, 1), (50, 1)):
        columns.write(row, node(*(used(f"{row}-{place}") for place in range(cards))))
        widths.append(columns.standing.shape)
        assert columns.rows == row + 1
    assert widths == [(2, 4), (2, 5), (3, 8), (3, 10), (3, 51)]
    for name in (*CELLS, "version", "registered", "mig", "usable", "cards", "host_cpu", "host_whole", "node_score"):
        column = getattr(columns, name)
        assert column.shape == (widths[-1] if name in CELLS else widths[-1][1:]), name
    assert not columns.registered[[0, 1, 2, 5, 6, *range(9, 50)]].any()
    assert columns.standing[:, 9:50].min() == columns.standing[2, 50] == ABSENT
    assert columns.host_cpu.min() == columns.host_whole.min() == ANY_CPU
    assert columns.version[9:50].max() == columns.node_score[9:50].max() == 0


def test_what_there_is_room_for_moves_no_column() -> None:
    columns = Columns(rows=4, cards=2)
    version, mem = columns.version, columns.mem
    columns.write(3, node(used("d0"), used("d1")))
    assert columns.version is version
    assert columns.mem is mem
    columns.write(3, node())
    assert columns.mem is mem
    columns.write(3, node(*(used(f"d{place}") for place in range(5))))
    assert columns.standing.shape == (5, 4), "a wider node in the last row needs no more rows"


def test_number_0_is_no_card() -> None:
    columns = Columns()
    columns.write(0, node(used("d0")))
    assert columns.kinds == [("", "", ""), (NVIDIA, "NVIDIA-A100", "hami-core")]
    columns.write(0, None)
    assert columns.kind.max() == 0


def test_what_a_card_is_has_five_numbers_in_three_bits() -> None:
    assert sorted((ABSENT, SICK, CORDONED, WRONG_TYPE, WRONG_ID)) == [1, 2, 3, 4, 5]
    assert np.iinfo(np.int32).max == TOP + 1, "one more is the most that an ask is compared as"


def test_what_is_left_on_a_card_has_a_bit_each_above_what_it_is() -> None:
    assert sorted((NO_SLOT, USED, USED_ALL, NO_UNITS)) == [8, 16, 32, 64], "and the highest is left to the sieve"


@pytest.mark.parametrize(("cards", "odd"), [(MAX_CARDS, set()), (MAX_CARDS + 1, {0})])
def test_only_a_node_of_more_cards_than_a_scan_can_count_is_odd(cards: int, odd: set[int]) -> None:
    columns = Columns()
    columns.write(0, node(*(used(f"d{place}") for place in range(cards))))
    assert columns.odd == odd


def test_rows_that_have_changed_are_found_however_many_are_asked_about() -> None:
    columns = Columns(rows=2 * FEW_ROWS)
    for row in range(2 * FEW_ROWS):
        columns.write(row, node())
    seen, random = columns.version.copy(), Random(1)
    moved = random.sample(range(2 * FEW_ROWS), 50)
    for row in moved:
        columns.write_host(row, 5.0)
    for count in (0, 1, FEW_ROWS, FEW_ROWS + 1, 2 * FEW_ROWS):
        rows = np.array(random.sample(range(2 * FEW_ROWS), count), np.int64)
        assert columns.changed(seen, rows).tolist() == [row in moved for row in rows.tolist()]
