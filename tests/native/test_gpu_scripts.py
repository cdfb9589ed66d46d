"""The programs of tests/gpu run from end to end on simulated cards: what is said of a card later is not lost to a slip.

Figures are not judged here: these are real seconds on a machine that has other work.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hami.sim.cards import Bench, parse

from .conftest import Tools

GPU = Path(__file__).resolve().parents[1] / "gpu"
RUNS = {
    "limits.py": ("--only", "names,overhead", "--quick", "--seconds", "0.5"),
    "broker.py": ("--only", "live", "--quick", "--seconds", "0.5"),
    "two_cards.py": ("--seconds", "2"),
    "ways_round.py": ("--only", "names"),
}


@pytest.mark.parametrize("name", RUNS)
def test_it_has_a_row_for_each_thing_that_it_measures(name: str, tools: Tools, tmp_path: Path) -> None:
    cards = Bench(tmp_path / "cards", parse("cards: [{model: A100-40}, {model: A100-40}]"))
    command = [sys.executable, GPU / name, *RUNS[name], "--out", tmp_path, "--simulated", tools.folder / "sim"]
    done = subprocess.run(
        command, env={**os.environ, **cards.environment}, capture_output=True, text=True, check=False, timeout=180
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in {0, 1}, done.stderr  # a row that fails is no fault of the program
    (told,) = [json.loads(made.read_text()) for made in tmp_path.glob("*.json")]
    rows = {row["name"]: row for row in told["rows"]}
    assert len(rows) >= 2
    assert "this section" not in rows, rows["this section"]
