import os
import subprocess
from pathlib import Path

from hami.native import STANDIN, library


def test_it_leaves_one_line_for_each_program_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "loaded"
    environment = {**os.environ, "LD_PRELOAD": str(library(STANDIN)), "HAMI_STANDIN_LOG": str(log)}
    for _ in range(2):
        done = subprocess.run(["/bin/cat", "/dev/null"], env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    lines = log.read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["cat", "cat"]


def test_a_program_runs_where_the_line_cannot_be_written(tmp_path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": str(library(STANDIN)), "HAMI_STANDIN_LOG": str(tmp_path / "no/such")}
    done = subprocess.run(["/bin/echo", "runs"], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("runs\n", "")
