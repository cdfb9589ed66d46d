"""`tests/gpu/pods`, the whole chain with tenants' pods, on a simulated card: that what it proves can be proved."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hami.lab import obstacle

ROOT = Path(__file__).resolve().parents[2]
STEPS = "by_cdi,sizes,resized,full_card,ways_of_starting,evading"

pytestmark = [pytest.mark.lab, pytest.mark.node, pytest.mark.timeout(400)]


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
def test_every_row_of_the_chain_holds_on_a_simulated_card_and_the_page_has_them_all(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tests/gpu/pods", "--simulated", "--out", tmp_path, "--only", STEPS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=380)
    saved = json.loads((tmp_path / "pods.json").read_text())
    assert [row["name"] for row in saved["rows"] if row["ok"] is False] == [], done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["row"] for row in saved["rows"]} >= {"3.1", "3.11", "4.6", "4.14", "5.2", "5.16"}
    assert {row["step"] for row in saved["rows"]} == set(STEPS.split(","))
