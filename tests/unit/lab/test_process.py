"""One program: it starts, is waited for, killed, restarted, and dies with its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hami.lab.errors import LabError
from hami.lab.process import Process


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def shell(script: str, log: Path) -> Process:
    return Process("it", ["sh", "-c", script], log)


def test_a_program_that_ends_before_it_is_ready_shows_the_end_of_its_log(log: Path) -> None:
    run = shell("echo no such port; exit 3", log)
    run.start()
    with pytest.raises(LabError, match=r"ended with 3[\s\S]*no such port"):
        run.wait_ready(lambda: False)


def test_a_program_that_never_gets_ready_is_reported_with_the_reason(log: Path) -> None:
    run = shell("exec sleep 60", log)

    def probe() -> bool:
        raise ConnectionRefusedError("refused")

    run.start()
    with pytest.raises(LabError, match=r"after 0.1 s \(refused\)"):
        run.wait_ready(probe, timeout=0.1)
    run.kill()
    assert run.returncode == -signal.SIGKILL


def test_a_stop_that_is_not_heeded_becomes_a_kill_of_the_whole_group(log: Path) -> None:
    run = shell("trap '' TERM; sleep 60 & echo $!; while :; do sleep 1; done", log)
    run.start()
    run.wait_ready(log.read_text)
    child = int(log.read_text())
    run.stop(grace=0.1)
    assert not run.running
    assert not _runs(child)


def test_a_restart_is_a_new_process_in_the_same_log(log: Path) -> None:
    run = shell("echo started; exec sleep 60", log)
    run.start()
    run.wait_ready(log.read_text)
    first = run.pid
    run.restart()
    run.wait_ready(lambda: log.read_text().count("started") == 2)
    assert run.pid != first
    run.kill()


def test_a_program_started_in_a_thread_outlives_the_thread(log: Path) -> None:
    run = shell("exec sleep 60", log)
    thread = threading.Thread(target=run.start)
    thread.start()
    thread.join()
    time.sleep(0.2)  # the kernel's signal, if it were sent, would be here by now
    assert run.running
    run.kill()


def test_a_program_dies_with_its_parent(log: Path) -> None:
    code = f"""
from pathlib import Path; import time; from hami.lab.process import Process
run = Process("it", ["sleep", "60"], Path({str(log)!r})); run.start(); print(run.pid, flush=True); time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()
    deadline = time.monotonic() + 30
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (ProcessLookupError, FileNotFoundError):
        return False
