"""The page of what was measured says what its saved runs say."""

import subprocess
import sys
from pathlib import Path

TABLES = Path(__file__).resolve().parents[1] / "gpu/tables.py"


def test_the_tables_are_those_of_the_saved_runs() -> None:
    """`python3 tests/gpu/tables.py write` makes them so."""
    assert subprocess.run([sys.executable, TABLES, "check"], check=False).returncode == 0
