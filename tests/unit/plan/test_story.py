"""The same asks on the same clusters get the same answers in every process: words hash differently in each."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def told(hash_seed: int) -> str:
    return subprocess.run(
        [sys.executable, "-m", "tests.unit.plan.story", "40"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_two_processes_tell_the_same_story() -> None:
    one, other = told(1), told(2)
    assert one == other
    assert one.count("Plan(") > 50
    assert one.count("Survey(") > 20
