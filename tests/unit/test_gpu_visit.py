"""A visit to a card, `tests/gpu/visit.py`: no time on it is lost to a slip of the pen or a step that hangs."""

import importlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "tests/gpu"


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(GPU), str(GPU / "pods"), *sys.path])
    return importlib.import_module("visit")


def test_each_part_ends_within_the_time_that_one_command_has(visit: ModuleType) -> None:
    for steps in visit.PARTS.values():
        assert visit.OWN_S + sum(step.seconds for step in steps) <= 590 - visit.GRACE_S


def test_every_step_asks_for_what_its_program_has(visit: ModuleType) -> None:
    sections = {
        "limits.py": set(importlib.import_module("limits").SECTIONS),
        "broker.py": {*importlib.import_module("broker").SECTIONS, *importlib.import_module("broker").POOLED},
        "pods": {step.__name__ for step in importlib.import_module("chain").STEPS},
    }
    for step in [step for steps in visit.PARTS.values() for step in steps]:
        words = list(step.words[: step.words.index("--out")] if "--out" in step.words else step.words[:4])
        told = subprocess.run([sys.executable, *words, "--help"], capture_output=True, text=True, check=True).stdout
        assert all(word in told for word in step.words if word.startswith("--")), step.name
        if "--only" in step.words:
            asked = step.words[step.words.index("--only") + 1].split(",")
            assert set(asked) <= sections[Path(words[0]).name], step.name


def test_what_hangs_is_ended_and_what_was_found_is_kept(
    visit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    writes = "open('rows.json', 'w').write('[1]'); print('a row', flush=True)"
    hangs = f"{writes}; import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    monkeypatch.setattr(visit, "GRACE_S", 0.2)
    parts = {"one": (visit.Step("hangs", 1, ("-c", hangs)), visit.Step("fails", 9, ("-c", "raise SystemExit(3)")))}
    monkeypatch.setattr(visit, "PARTS", parts)
    assert visit.main(["one", "--out", str(tmp_path), "--most", "10"]) == 1
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        assert {"./hangs/rows.json", "./hangs/printed", "./fails/printed"} <= set(archive.getnames())
        told = archive.extractfile("./visit.json")
        assert told is not None
        assert json.load(told) == {"hangs": "none, time was up", "fails": 3}
    assert "a row\n" in (tmp_path / "one.log").read_text()


def test_a_step_that_there_is_no_time_for_is_named_and_not_begun(
    visit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(visit, "PARTS", {"one": (visit.Step("late", 5, ("-c", "raise SystemExit(0)")),)})
    assert visit.main(["one", "--out", str(tmp_path), "--most", "1"]) == 1
    assert "1 failed: late (not begun, time was up)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [([], "which part? one, several, torch, chain, cards"), (["one", "--only", "turns"], "no step of one")],
)
def test_what_it_cannot_do_is_said_with_what_it_can(
    visit: ModuleType, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        visit.main(words)
    assert left.value.code == 2
    assert says in capsys.readouterr().err
