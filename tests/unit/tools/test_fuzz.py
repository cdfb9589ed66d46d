"""`make fuzz`: what it says where nothing can be run, and what it reads of libFuzzer's words."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"
SAID = """INFO: Loaded 1 modules   (502 inline 8-bit counters): 502 [0x5a, 0x5b),
INFO: Loaded 1 PC tables (502 PCs): 502 [0x5c,0x5d),
#2\tINITED cov: 20 ft: 21 corp: 2/300b exec/s: 0 rss: 31Mb
#697442\tDONE   cov: 139 ft: 232 corp: 56/9Kb lim: 4096 exec/s: 53649 rss: 450Mb
stat::number_of_executed_units: 697442
stat::average_exec_per_sec:     53649
"""


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import fuzz

    return fuzz


def test_without_a_compiler_that_can_it_says_so_and_nothing_fails(tmp_path: Path) -> None:
    command = [sys.executable, TOOLS / "fuzz.py", "--minutes", "0.01"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("fuzz: skipped, there is no clang")) == (0, True)


def test_figures_are_those_of_the_end_of_a_run(fuzz: ModuleType) -> None:
    told = fuzz.outcome("policy", SAID, (), 56)
    assert told == fuzz.Outcome("policy", 697442, 53649, 139, 502, 232, 56, ())


def test_a_target_that_dies_is_a_finding_and_its_input_is_kept(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clang = fuzz.compiler()
    if clang is None:
        pytest.skip("no clang with a fuzzer's runtime here")
    (tmp_path / "tests/fuzz").mkdir(parents=True)
    dies = "int LLVMFuzzerTestOneInput(const char *at, unsigned long size) { if (size > 2) __builtin_trap(); (void)at; "
    (tmp_path / "tests/fuzz/dying.c").write_text(dies + "return 0; }\n")
    for name, place in {"NATIVE": "", "KEPT": "kept", "FOUND": "tests/fuzz/found"}.items():
        monkeypatch.setattr(fuzz, name, tmp_path / place)
    monkeypatch.setitem(fuzz.TARGETS, "dying", ())
    (found,) = fuzz.fuzz("dying", clang, 0.1).found
    assert len(found.read_bytes()) > 2
