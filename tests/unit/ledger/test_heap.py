"""A process that goes on deciding has the memory for it, and keeps it."""

import resource
import tracemalloc
from types import SimpleNamespace

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
    told: list[tuple[int, int | None]] = []
    monkeypatch.setattr(heap, "make_ready", lambda nodes, spare: told.append((nodes, spare)))
    Ledger().make_ready()
    Ledger().make_ready(5)
    assert told == [(0, None), (0, 5)]


def test_another_c_library_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    assert not heap.make_ready(5)


class Library:
    """A C library that notes what it is told, and takes the first `takes` of it."""

    def __init__(self, takes: int = 2) -> None:
        self.told: list[tuple[int, int]] = []
        self.takes = takes

    def mallopt(self, what: int, value: int) -> int:
        self.told.append((what, value))
        return int(len(self.told) <= self.takes)


def told(monkeypatch: pytest.MonkeyPatch, library: Library, nodes: int, spare: int | None = None) -> bool:
    monkeypatch.setattr(heap, "ctypes", SimpleNamespace(CDLL=lambda _: library))
    return heap.make_ready(nodes, spare)


MIB = 1 << 20
TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD


@pytest.mark.parametrize(("nodes", "kept"), [(0, 32 * MIB), (1000, 32 * MIB), (5000, 2 * 5000 * 12 * 1024)])
def test_large_blocks_are_not_kept_and_of_the_others_twice_what_decisions_need(
    nodes: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    assert told(monkeypatch, library, nodes)
    assert library.told == [(MMAP, 16 * MIB), (TRIM, kept)]


@pytest.mark.parametrize("takes", [0, 1])
def test_a_c_library_that_does_not_listen_is_let_be(takes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not told(monkeypatch, library := Library(takes), 5)
    assert len(library.told) == takes + 1


def test_twelve_kib_a_node_are_written_in_parts_that_are_kept_and_then_free(monkeypatch: pytest.MonkeyPatch) -> None:
    tracemalloc.start()
    try:
        assert told(monkeypatch, Library(), 2000)
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2000 * 12 * 1024 <= most < 2000 * 12 * 1024 + MIB
    assert left < MIB


@pytest.mark.parametrize(
    ("spare", "ready"), [(0, 0), (-5, 0), (40 * MIB, 20 * MIB), (234 * MIB, 117 * MIB), (235 * MIB, 10_000 * 12 * 1024)]
)
def test_half_of_what_a_container_may_still_take_is_left_alone(
    spare: int, ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracemalloc.start()
    try:
        assert told(monkeypatch, library := Library(), 10_000, spare)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ready <= most < ready + MIB
    assert library.told[1] == (TRIM, 2 * max(ready, 16 * MIB))


def test_no_part_is_as_large_as_what_would_be_given_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []

    def smaller(part: int, left: int) -> int:
        parts.append(min(part, left))
        return parts[-1]

    monkeypatch.setattr(heap, "min", smaller, raising=False)
    assert told(monkeypatch, Library(), 3000)
    assert sum(parts) == 3000 * 12 * 1024
    assert max(parts) < heap.LARGE
