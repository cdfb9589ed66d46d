"""What is kept of every row for asks of one shape: which rows are weighed now, and which have their turn later."""

import numpy as np
import pytest

from hami.plan.fleet.columns import Columns
from hami.plan.pack.kept import NO_ROOM, UNWEIGHED, Kept

from .packs import ask, ledger_of


def columns(rows: int) -> Columns:
    return ledger_of(*[(f"n{row}", 1, "A", 1e9) for row in range(rows)])._index.columns


def rows(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def known(of: Columns, *gains: float) -> Kept:
    """All rows have been weighed, or wait, as they are now."""
    kept = Kept(len(of.version))
    kept.stale(np.arange(of.rows), of)
    kept.gain[: of.rows], kept.seen[:] = gains, of.version
    return kept


@pytest.mark.parametrize("used_before", [False, True])
def test_of_a_shape_that_nobody_asked_for_nothing_is_known(used_before: bool) -> None:
    kept = Kept(3)
    if used_before:
        kept.gain[:], kept.seen[:], kept.wait, kept.blank = 5, 5, 5, False
        kept.forget()
    assert kept.gain.tolist() == [NO_ROOM] * 3
    assert kept.seen.tolist() == [0] * 3
    assert (kept.wait, kept.blank) == (0, True)


def test_the_first_ask_of_a_shape_weighs_all_rows_without_a_look_at_what_has_changed_and_the_next_looks() -> None:
    cluster, looks = columns(3), []
    kept, changed = Kept(len(cluster.version)), cluster.changed
    cluster.changed = lambda *given: looks.append(given) or changed(*given)  # type: ignore[method-assign]
    assert kept.stale(rows(0, 2), cluster).tolist() == [0, 2]
    assert looks == []
    kept.seen[[0, 2]] = cluster.version[[0, 2]]
    assert kept.stale(rows(0, 1, 2), cluster).tolist() == [1]
    assert len(looks) == 1


def test_those_that_wait_have_their_turn_after_so_many_decisions_and_are_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hami.plan.pack.kept.PATIENCE", 3)
    cluster = columns(3)
    kept = known(cluster, -1, 0, 0)
    kept.put_off(rows(1, 2), np.array([True, False]))
    assert kept.gain[:3].tolist() == [-1, UNWEIGHED, NO_ROOM]
    assert [kept.stale(rows(0, 1, 2), cluster).tolist() for _ in range(4)] == [[], [], [1], []]
    assert kept.wait == 0


def test_those_that_wait_have_their_turn_at_once_where_nobody_else_has_room() -> None:
    cluster = columns(2)
    kept = known(cluster, NO_ROOM, 0)
    kept.put_off(rows(1), np.array([True]))
    assert kept.stale(rows(0, 1), cluster).tolist() == [1]


def test_who_was_not_asked_about_when_the_others_had_their_turn_waits_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hami.plan.pack.kept.PATIENCE", 2)
    cluster = columns(4)
    kept = known(cluster, -1, 0, 0, 0)
    kept.put_off(rows(1, 2, 3), np.array([True, True, True]))
    assert [kept.stale(rows(0, 1), cluster).tolist() for _ in range(2)] == [[], [1]]
    kept.gain[1] = -2
    cluster.write_host(3, 1000)  # has changed: it is weighed whenever somebody asks
    assert [kept.stale(rows(0, 1, 2), cluster).tolist() for _ in range(2)] == [[], [2]]
    assert kept.wait == 0
    assert kept.stale(rows(3), cluster).tolist() == [3]


def test_a_node_that_was_not_asked_about_for_a_while_is_weighed_like_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, number in (("chooser.WHOLE", 2), ("chooser.AT_ONCE", 2), ("kept.PATIENCE", 2)):
        monkeypatch.setattr(f"hami.plan.pack.{name}", number)
    ledger = ledger_of(*[(f"n{number}", 1, "A", 1e9) for number in range(4)])
    index, every = ledger._index, [f"n{number}" for number in range(4)]

    def unweighed(names: list[str]) -> int:
        gains = index.pack.gains(ask("same", 500), index.columns, index.rows_of(names))
        return int((gains == UNWEIGHED).sum())

    assert unweighed(every) == 2
    late = [name for name in every if unweighed([name])]
    assert late == [], "whoever is asked about alone is weighed at once"
    assert unweighed(every) == 0
