"""docs/reference/gpu-chain.md says what the saved runs say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs/reference"


def test_the_page_of_the_chain_is_made_of_the_saved_runs() -> None:
    runs = sorted(DOCS.glob("gpu-chain-*.json"))
    command = [sys.executable, ROOT / "tests/gpu/pods/page.py", *runs]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert made == (DOCS / "gpu-chain.md").read_text(), "write it anew with tests/gpu/pods/page.py"
