"""The quarter of a cluster that replays with departures use, and what a line of results is known by."""

from benchmarks.packing import Run, against_pack, quarter, run_of

from hami.sim.traces.trace import Machine


def _machines() -> list[Machine]:
    kinds = (("T4", 2, 13), ("V100M16", 8, 8))
    return [
        Machine(name=f"{model}-{at:02}", cards=cards, model=model, cpu_milli=64000, mem_mib=1 << 18)
        for model, cards, many in kinds
        for at in range(many)
    ]


def test_a_quarter_has_of_each_four_alike_one_and_a_seed_draws_which() -> None:
    first, drawn, other = (quarter(_machines(), seed) for seed in (None, 1, 2))
    assert [one.name for one in first][:2] == ["T4-00", "T4-04"]
    assert {len(first), len(drawn), len(other)} == {6}
    assert first != drawn != other
    assert drawn == quarter(_machines(), 1)


def test_replays_of_the_trace_are_no_steady_loads_and_no_inflation() -> None:
    line = {"list": "default", "policy": "fgd", "seed": 3, "load": 0.0}
    assert run_of(line) == Run("default", "fgd", 3)
    assert run_of(line | {"compress": 2000.0}) == Run("default", "fgd", 3, 0.0, 2000.0)


def test_who_waits_longer_than_pack_is_said_by_how_much() -> None:
    measured = {"allocated": 90.0, "p95": 0.0, "waited": 1, "failed": 2}
    lines = [
        {"list": "default", "policy": policy, "seed": seed, "wait": wait + seed, **measured}
        for policy, wait in (("pack", 1.0), ("fgd", 1.5))
        for seed in range(6)
    ]
    fgd, pack = against_pack(lines, "list")
    assert (fgd["wait_more"], fgd["wait_p"], fgd["failed_more"]) == (0.5, 2 / 64, 0.0)
    assert (fgd["wait_low"], fgd["wait_high"]) == (0.5, 0.5)
    assert "wait_more" not in pack


def test_replays_are_compared_with_pack_on_the_same_list_as_dense_as_they_are() -> None:
    measured = {"seed": 1, "allocated": 90.0, "p95": 0.0, "waited": 1, "failed": 2}
    lines = [
        {"list": name, "compress": dense, "policy": policy, "wait": wait * dense, **measured}
        for name in ("default", "gpushare40")
        for dense in (1000.0, 2000.0)
        for policy, wait in (("pack", 1.0), ("fgd", 1.5))
    ]
    found = [one for one in against_pack(lines, "list", "compress") if one["policy"] == "fgd"]
    assert [(one["list"], one["compress"], one["seeds"], one["wait_more"]) for one in found] == [
        ("default", 1000.0, 1, 500.0), ("default", 2000.0, 1, 1000.0),
        ("gpushare40", 1000.0, 1, 500.0), ("gpushare40", 2000.0, 1, 1000.0),
    ]  # fmt: skip
