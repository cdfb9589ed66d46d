"""A process that goes on deciding has the memory for it, and keeps it."""

import resource

import numpy as np
import pytest

from hami.ledger import heap
from hami.ledger.cluster import Ledger


def pages(arrays: int) -> int:
    """New pages that so many arrays of 400 KB, written and dropped, cost."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(arrays):
        two = np.ones(50_000), np.ones(50_000)
        del two
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_what_is_freed_is_used_again_without_new_pages() -> None:
    if not heap.make_ready(1000):
        pytest.skip("the C library has no such choice")
    pages(1)
    assert pages(200) < 200, "one array of this size has 98 pages"


def test_a_ledger_of_no_nodes_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(heap, "make_ready", told.append)
    Ledger().make_ready()
    assert told == [0]


def test_another_c_library_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    assert not heap.make_ready(5)
