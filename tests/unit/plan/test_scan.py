"""A scan over columns says of every card what `plan.exact.rules` says of it, and counts that node by node."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from hami.model.ask import CardAsk
from hami.model.refusal import Reason
from hami.plan.exact import rules
from hami.plan.exact.rules import WHOLE
from hami.plan.fleet.columns import TOP, Columns
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.need import Needs
from hami.plan.fleet.scan import USUAL_NUMAS, Scan, _numbers
from hami.plan.fleet.sieve import Sieves
from hami.plan.fleet.tally import REASONS, counts
from hami.plan.snapshot import CardState, NodeState

from . import builders as make
from .builders import NVIDIA, node, used, want


def columns_of(*states: NodeState) -> Columns:
    columns = Columns(rows=1, cards=1)
    for row, state in enumerate(states):
        columns.write(row, state)
    return columns


def scan_of(columns: Columns, ask: CardAsk, idle_only: bool = False, rows: list[int] | None = None) -> Scan:
    return Scan(Cut(columns, None if rows is None else np.array(rows)), Sieves(), ask, idle_only)


def slow(ask: CardAsk, state: NodeState, idle_only: bool) -> tuple[int, int, dict[Reason, int], int]:
    """Cards of the family, those that can serve one container, how many are refused why, and the MiB lacking."""
    cards = state.of(ask.family)
    refusals = [rules.refuse(ask, one, idle_only) for one in cards]
    fit = [one.card.numa for one, refusal in zip(cards, refusals, strict=True) if refusal is None]
    together = max(Counter(fit).values(), default=0) if ask.rules.numa_bind else len(fit)
    lacking = [one.needed - one.had for one in refusals if one and one.reason is Reason.INSUFFICIENT_MEMORY]
    reasons = dict(Counter(one.reason for one in refusals if one))
    return len(cards), together, reasons, min(lacking, default=-1)


def quick(scan: Scan, rows: int) -> list[tuple[int, int, dict[Reason, int], int]]:
    tallies, least = scan.tallies(np.arange(rows))
    return [
        (int(total), int(together), dict(counts(int(tally))), int(lack))
        for total, together, tally, lack in zip(
            scan.total[:rows], scan.together[:rows], tallies, least, strict=True
        )
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(make.SEEDS)
def test_what_is_counted_is_what_the_rules_say_card_by_card(seed: int) -> None:
    random = Random(seed)
    states = [make.random_node(random, f"n{number}") for number in range(random.choice((1, 4, 9)))]
    columns = columns_of(*states)
    for _ in range(4):
        ask, idle_only = make.random_want(random), random.random() < 0.4
        scan = scan_of(columns, ask, idle_only)
        due = [slow(ask, state, idle_only) for state in states]
        assert quick(scan, len(states)) == due
        assert scan.fits.tolist() == [together >= ask.cards for _, together, _, _ in due]
        picked = random.sample(range(len(states)), random.randint(1, len(states)))
        assert quick(scan_of(columns, ask, idle_only, picked), len(picked)) == [due[row] for row in picked]


FULL = {"slots": 4, "mem_mib": 10, "core_percent": 100}
CARDS = [
    CardState(make.card("d0", **(FULL | more)), *use, cordoned=cordoned)
    for more in ({}, {"healthy": False}, {"core_percent": 200}, {"core_percent": 0}, {"mem_mib": 0})
    for use in (
        (0, 0, 0),
        (1, 0, 0),
        (4, 0, 0),
        (5, 0, 0),
        (1, 8, 0),
        (1, 0, 100),
        (1, 0, 99),
        (1, 10, 100),
        (0, 11, 1),
        (0, 0, 100),
    )
    for cordoned in (False, True)
]
"""Every rule is broken by some, and every two of them by one."""
WANTS = [
    want(mem, cores, **words)
    for mem, cores, words in product((0, 1, 5, 11), (0, 1, 100), ({}, {"use_types": ("V100",)}, {"nouse_ids": ("d0",)}))
]


@pytest.mark.parametrize("idle_only", [False, True])
def test_of_several_reasons_the_first_by_the_rules_is_counted(idle_only: bool) -> None:
    states = [node(one, name=f"n{number}") for number, one in enumerate(CARDS)]
    columns, seen = columns_of(*states), set()
    for ask in WANTS:
        due = [slow(ask, state, idle_only) for state in states]
        assert quick(scan_of(columns, ask, idle_only), len(states)) == due
        seen |= {reason for _, _, reasons, _ in due for reason in reasons}
    assert seen == set(REASONS)


@pytest.mark.parametrize(
    ("state", "ask", "reason"),
    [
        (used("d0", 10), want(9000), Reason.SLOTS_EXHAUSTED),  # before memory
        (used("d0", 1, 8000, 100), want(1, cores=WHOLE), Reason.INSUFFICIENT_MEMORY),  # before cores
        (used("d0", 1, 0, 50), want(1, cores=WHOLE), Reason.INSUFFICIENT_CORE),  # before being taken
        (used("d0", 1, 0, 0), want(1, cores=WHOLE), Reason.EXCLUSIVE_CONFLICT),
        (used("d0", 1, 0, 100), want(1), Reason.CORES_EXHAUSTED),
        (used("d0", 1, 0, 0, core_percent=200), want(1, cores=WHOLE), None),  # only where 100 is all of a card
        (used("d0", 1, 0, 0, core_percent=0), want(1), None),  # a card that does not count cores has none to exhaust
        (used("d0", 1, 0, 99), want(1), None),
        (used("d0", 1, 0, 100), want(1, cores=1), Reason.INSUFFICIENT_CORE),
        (used("d0", 0, 0, 0), want(1, cores=WHOLE), None),
    ],
)
def test_each_rule_has_its_place_and_its_limit(state: CardState, ask: CardAsk, reason: Reason | None) -> None:
    scan = scan_of(columns_of(node(state)), ask)
    assert list(counts(int(scan.tallies(np.array([0]))[0][0]))) == ([reason] if reason else [])
    assert scan.accepts.any() == (reason is None)


@pytest.mark.parametrize(
    ("numas", "together"),
    [
        ((0, 0, 1), 2),
        ((0, 1, 1, 2, 2, 2), 3),
        ((0, 1, 2, 3), 1),
        ((3, 3, 3), 3),
        ((-1, -1, 0), 2),  # nobody said
        ((-1, -1, -1, 5), 3),
        ((1, 1, 2 * USUAL_NUMAS), 2),
        ((0, 2 * USUAL_NUMAS, 2 * USUAL_NUMAS), 2),
        ((7, 7, 2 * USUAL_NUMAS + 6, 2 * USUAL_NUMAS + 6, 2 * USUAL_NUMAS + 6), 3),
        ((7, 7, 2 * USUAL_NUMAS + 7, 2 * USUAL_NUMAS + 7, 2 * USUAL_NUMAS + 7), 3),
        ((-500, 9000, 9000), 2),
    ],
)
def test_cards_count_together_that_share_a_numa_node_whatever_its_number(numas: tuple[int, ...], together: int) -> None:
    state = node(*(used(f"d{place}", numa=numa) for place, numa in enumerate(numas)))
    scan = scan_of(columns_of(state), want(numa_bind=True))
    assert scan.together.tolist() == [together]
    assert scan_of(columns_of(state), want()).together.tolist() == [len(numas)]


def test_no_card_has_what_is_above_every_cell() -> None:
    """A cell is cut to TOP: an ask for that much fits a card of that size, one for more fits none."""
    huge = node(used("d0", mem_mib=TOP + 50, core_percent=TOP + 50))
    columns = columns_of(huge)
    assert scan_of(columns, want(TOP)).fits.all()
    assert scan_of(columns, want(0, cores=TOP)).fits.all()
    for more in (TOP + 1, TOP + 2, 2**40):
        assert not scan_of(columns, want(more)).fits.any()
        assert not scan_of(columns, want(0, cores=more)).fits.any()


@pytest.mark.parametrize(("cards", "asked", "fits"), [(255, 255, True), (254, 255, False), (255, 254, True)])
def test_a_byte_counts_the_cards_of_a_node(cards: int, asked: int, fits: bool) -> None:
    state = node(*(used(f"d{place}") for place in range(cards)))
    assert scan_of(columns_of(state), want(cards=asked)).fits.tolist() == [fits]


def test_a_memory_share_is_of_each_card_and_so_is_what_lacks() -> None:
    state = node(used("d0", 1, 7000), used("d1", 1, 3500, mem_mib=4000), used("d2", mem_mib=2**31 - 2))
    scan = scan_of(columns_of(state), want(percent=50))
    assert scan.accepts[:, 0].tolist() == [False, False, True]
    assert scan.tallies(np.array([0]))[1].tolist() == [1500], "2000 of the second card, of which 500 are free"
    assert scan_of(columns_of(state), want(percent=0)).tallies(np.array([0]))[1].tolist() == [-1]


def test_what_an_ask_makes_of_cards_is_kept_until_an_inventory_changes_and_for_so_many_asks() -> None:
    columns, needs = columns_of(node(used("d0"))), Needs()
    first = needs.of(columns, want(1))
    assert needs.of(columns, want(2, cores=5)) is first, "how much is asked makes no difference"
    assert needs.of(columns, replace(want(1), mem_percent=7)) is first, "MiB count, where both are given"
    assert needs.of(columns, want(percent=7)) is not needs.of(columns, want(percent=8))
    columns.write_use(0, 0, used("d0", 1, 5))
    assert needs.of(columns, want(1)) is first
    columns.write(0, node(used("d0"), used("d1")))
    second = needs.of(columns, want(1))
    assert second is not first
    assert second.total.tolist()[:1] == [2]
    for number in range(Needs.SIZE - 1):
        needs.of(columns, want(1, use_types=(f"T{number}",)))
    assert needs.of(columns, want(1)) is second
    needs.of(columns, want(1, use_types=("one more",)))
    assert needs.of(columns, want(1)) is not second
    assert len(needs._kept) == Needs.SIZE


def test_columns_that_never_had_a_card_are_looked_at_once() -> None:
    columns, needs = Columns(), Needs()
    assert needs.of(columns, want()) is needs.of(columns, want())
    assert needs.of(columns, want()).total.sum() == 0
    assert NVIDIA not in {family for family, _, _ in columns.kinds}


@pytest.mark.parametrize(
    ("numas", "numbers"),
    [
        ([], range(1)),
        ([0], range(1)),
        ([3, 5], range(6)),
        ([-1, -1], range(-1, 1)),
        ([0, 12], range(13)),
        ([0, 2 * USUAL_NUMAS - 1], range(2 * USUAL_NUMAS)),
        ([0, 2 * USUAL_NUMAS], [0, 2 * USUAL_NUMAS]),
        ([-5, 12, 12], [-5, 12]),
    ],
)
def test_numa_numbers_that_are_near_each_other_are_counted_through_and_others_sorted(
    numas: list[int], numbers: Sequence[int]
) -> None:
    assert _numbers(np.array([numas], np.int32)) == numbers
