"""What a person sees: the answer first, one row for cards that are alike, and no traceback on a plain terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.unit.cli.test_look import NVIDIA, half_full, run

from hami.cli.main import hami
from hami.model.ids import CardId, NodeName
from hami.sim.traces import charts
from hami.sim.traces.replay import Point
from hami.wire import record, snapshot
from hami.wire.snapshot import CardEntry, NodeEntry, PoliciesEntry, Snapshot


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "cluster.json").write_bytes(snapshot.encode(half_full()))
    return str(tmp_path / "cluster.json")


def test_cards_of_which_the_same_is_said_are_one_row(tmp_path: Path) -> None:
    cards = tuple(CardEntry(CardId(f"d{n}"), NVIDIA, "NVIDIA L40S", n, 10, 46000) for n in range(8))
    (tmp_path / "c.json").write_bytes(snapshot.encode(Snapshot(1.0, (NodeEntry(NodeName("n"), cards),), ())))
    rows = run("fit", "--gpumem", "9", "--snapshot", str(tmp_path / "c.json")).output.splitlines()
    shown = [row.split()[0] for row in rows if "L40S" in row]
    assert shown == ["0", "1-7"], "the one that is taken stands alone"
    none = run("fit", "--gpumem", "99999", "--snapshot", str(tmp_path / "c.json")).output.splitlines()
    assert [row.split()[0] for row in none if "L40S" in row] == ["0-7"]


def test_habits_of_kubectl_are_understood(file: str) -> None:
    assert run("explain", "pod/waits", "-n", "team", "--snapshot", file).output.startswith("does not fit")
    manifest = b"{kind: Pod, spec: {containers: [{name: a, resources: {limits: {nvidia.com/gpu: 9}}}]}}"
    words = [sys.executable, "-m", "hami", "fit", "-f", "-", "--snapshot", file]
    done = subprocess.run(words, input=manifest, capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode().splitlines()[0]) == (
        1,
        "does not fit: 0 of 2 nodes (a: 9 x 100 % memory, 100 %)",
    )


def test_the_answer_of_frag_comes_first(file: str, tmp_path: Path) -> None:
    first, second, *_ = run("frag", "--snapshot", file).output.splitlines()
    assert first.startswith("Fragmentation ")
    assert second.startswith("Moves that would make room for")
    first, second, *_ = run("frag", "--snapshot", file, "--most-moves", "0").output.splitlines()
    assert second == "Moves were not looked for."


def test_where_no_card_is_registered_frag_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(snapshot.encode(Snapshot(1.0, (), ())))
    assert run("frag", "--snapshot", str(tmp_path / "c.json")).output.startswith("No node has registered a card")


def test_a_record_in_place_of_a_snapshot_is_told(tmp_path: Path) -> None:
    (tmp_path / "day.jsonl").write_bytes(record.encode(record.Start(1.0, PoliciesEntry())))
    fault = CliRunner().invoke(
        hami, ("fit", "--gpu", "1", "--snapshot", str(tmp_path / "day.jsonl")), standalone_mode=False
    )
    assert "this is a record" in str(fault.exception)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_utf_8_gets_its_tables_in_ascii(file: str, encoding: str) -> None:
    words = [sys.executable, "-m", "hami", "frag", "--snapshot", file]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Cards (# used, . free)" in done.stdout.decode(encoding)
    assert "###" in done.stdout.decode(encoding)


@pytest.mark.parametrize(("lasted", "unit"), [(50.0, "seconds"), (3600.0, "minutes"), (86400.0, "hours")])
def test_a_chart_over_time_has_the_unit_that_a_person_would_take(lasted: float, unit: str) -> None:
    drawn = {"pack": [Point(0.0, 0.0, 0.0, 1e9), Point(100.0, 50.0, 1.0, 1e9 + lasted)]}
    assert f">{unit}</text>" in charts.svg(drawn, "a day", charts.time(drawn))
