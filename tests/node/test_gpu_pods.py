"""`tests/gpu/pods`, the whole chain with tenants' pods, on a simulated card: that what it proves can be proved."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from hami.lab import obstacle

from . import musl

ROOT = Path(__file__).resolve().parents[2]
STEPS = "by_cdi,sizes,ways_of_starting,evading"
"""Those that no other test takes; a run of all is three minutes."""

pytestmark = [pytest.mark.lab, pytest.mark.node, pytest.mark.timeout(400)]


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
def test_every_row_of_the_chain_holds_on_a_simulated_card(tmp_path: Path) -> None:
    """Row 3.13's musl program too, where there is one."""
    try:
        with_musl = ("--musl", musl.built(tmp_path / "musl").folder)
    except musl.NotHere as why:
        warnings.warn(f"no musl program is tried: {why}", stacklevel=1)
        with_musl = ()
    rows, said = run(tmp_path, "--only", STEPS, *with_musl)
    assert ("a musl program: ended from outside" in {row["name"] for row in rows}) == bool(with_musl)
    assert [row["name"] for row in rows if row["ok"] is False] == [], said
    assert {row["row"] for row in rows} >= {"3.1", "3.11", "4.14", "5.2"}
    assert {row["step"] for row in rows} == set(STEPS.split(","))


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
def test_with_a_library_that_limits_nothing_the_same_checks_fail(tmp_path: Path) -> None:
    rows, said = run(tmp_path, "--control", "--only", "sizes,ways_of_starting")
    failed = {row["name"] for row in rows if row["ok"] is False}
    assert {"gpumem 3000: record, cuMemGetInfo", "env -i", "dlopen of the driver by its path: deepbind"} <= failed, said


def run(out: Path, *words: str | Path) -> tuple[list[dict[str, Any]], str]:
    command = [sys.executable, ROOT / "tests/gpu/pods", "--simulated", "--out", out, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=380)
    saved = json.loads((out / "pods.json").read_text())
    assert done.returncode == int(any(row["ok"] is False for row in saved["rows"])), done.stdout + done.stderr
    return saved["rows"], done.stdout
