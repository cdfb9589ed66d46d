"""Lists drawn with other shares: as many of each class as was said, of pods that are in the trace."""

from collections import Counter

import pytest
from benchmarks.lists import LISTS, Mix, Row, drawn, kind_of


def row(name: str, cards: int = 0, milli: int = 0, spec: str = "") -> Row:
    return {
        "name": name, "cpu_milli": name, "num_gpu": str(cards), "gpu_milli": str(milli), "gpu_spec": spec,
        "creation_time": "5", "deletion_time": "9",
    }  # fmt: skip


PLAIN = [row("1"), row("2"), row("3", 1, 500), row("4", 1, 999), row("5", 1, 1000), row("6", 8, 1000)]
TYPED = [row("1"), row("3", 1, 500, "T4"), row("5", 1, 1000, "G2"), row("5", 1, 1000), row("6", 8, 1000, "G2|G3")]


def test_there_are_as_many_of_each_class_as_was_said() -> None:
    for mix in (Mix(1, 2, 3, 4), Mix(7, 0, 0, 1, 0.5), *LISTS.values()):
        counted = Counter(map(kind_of, drawn(PLAIN, TYPED, mix, 1)))
        assert (counted["without"], counted["sharing"], counted["one"], counted["several"]) == (
            mix.without, mix.sharing, mix.one, mix.several,
        )  # fmt: skip


def test_a_pod_keeps_all_but_its_name_and_no_name_comes_twice() -> None:
    found = drawn(PLAIN, TYPED, Mix(3, 5, 2, 2), 1)
    known = {tuple((one | {"name": ""}).values()) for one in PLAIN}
    assert {tuple((one | {"name": ""}).values()) for one in found} <= known
    assert len({one["name"] for one in found}) == len(found)


def test_all_pods_of_a_class_are_taken_before_one_is_taken_twice() -> None:
    found = Counter(one["cpu_milli"] for one in drawn(PLAIN, TYPED, Mix(3, 4, 0, 0), 1))
    assert sorted((found["1"], found["2"])) == [1, 2]
    assert (found["3"], found["4"]) == (2, 2)


@pytest.mark.parametrize(("part", "some"), [(0.0, 0), (1.0, 400), (0.25, 100)])
def test_so_many_want_a_model_and_one_that_their_class_wants_in_the_trace(part: float, some: int) -> None:
    found = drawn(PLAIN, TYPED, Mix(50, 200, 100, 100, part), 1)
    wanted = {kind: {one["gpu_spec"] for one in found if kind_of(one) == kind} - {""} for kind in map(kind_of, PLAIN)}
    assert wanted["without"] == set()
    assert wanted["sharing"] <= {"T4"}
    assert wanted["one"] <= {"G2"}
    assert wanted["several"] <= {"G2|G3"}
    assert sum(one["gpu_spec"] != "" for one in found) == pytest.approx(some, abs=30 if 0 < part < 1 else 0)


def test_the_seed_fixes_the_list() -> None:
    mix = Mix(3, 5, 2, 2, 0.5)
    assert drawn(PLAIN, TYPED, mix, 1) == drawn(PLAIN, TYPED, mix, 1)
    assert drawn(PLAIN, TYPED, mix, 1) != drawn(PLAIN, TYPED, mix, 2)
