"""Set-up where something stands in the way: who is first, what an old Python is told, what of a long log is shown."""

import fcntl
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "tools/setup.py"


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, at work on a checkout that is empty."""
    spec = importlib.util.spec_from_file_location("tools_setup", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STAMPS", tmp_path / "setup")
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return module


def test_an_old_python_reads_the_file_to_where_it_is_told_so(setup: ModuleType) -> None:
    functions = [found for found in vars(setup).values() if getattr(found, "__module__", "") == setup.__name__]
    evaluated = [
        (found, kind)
        for found in functions
        for kind in getattr(found, "__annotations__", {}).values()
        if not isinstance(getattr(kind, "__forward_arg__", kind), str)
    ]
    assert evaluated == []


@pytest.mark.parametrize("target", ["setup", "setup-lab"])
def test_make_says_which_python_it_wants_before_it_runs_one_that_is_too_old(tmp_path: Path, target: str) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "SyntaxError: invalid syntax" >&2; exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "-C", ROOT, target, f"PYTHON={old}"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"setup: {old} is no Python 3.11 or newer; install one, or name it: make {target} PYTHON=" in done.stderr
    assert "SyntaxError" not in done.stderr


def test_a_second_set_up_of_a_checkout_waits_and_then_has_nothing_to_do(
    setup: ModuleType, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.STAMPS.mkdir()
    ran: list[str] = []
    step = setup.Step("one", "the step", lambda: "as it is", lambda _log: ran.append("ran"))
    holder = [sys.executable, "-c", HOLD, str(setup.STAMPS / ".lock"), str(setup.STAMPS / "one")]
    with subprocess.Popen(holder, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == b"held\n"
        go_on, take = first.stdin, fcntl.flock

        def flock(held: int, how: int) -> None:
            if how == fcntl.LOCK_EX:  # the one that waits
                go_on.close()
            take(held, how)

        monkeypatch.setattr(fcntl, "flock", flock)
        with setup.alone():
            setup.perform(step)
    assert ran == []
    assert "another one is at work on this checkout: waiting for it" in capfd.readouterr().err


HOLD = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
    open(sys.argv[2], "w").write("as it is")
"""


def test_a_program_that_outlives_its_set_up_is_waited_for(setup: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import subprocess; print(subprocess.Popen(['sleep', '30'], close_fds=False).pid, flush=True)"
    with setup.alone():
        setup.call([sys.executable, "-c", script], log, hint="")
    with (setup.STAMPS / ".lock").open("w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(int(log.read_text()), signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_what_pip_says_five_times_is_left_out_and_the_way_out_comes_last(setup: ModuleType, tmp_path: Path) -> None:
    said = "WARNING: Retrying (Retry(total=4)) after connection broken\\n" * 5 + "ERROR: No matching distribution found"
    with pytest.raises(setup.Failed) as failed:
        setup.call([sys.executable, "-c", f"print('{said}'); exit(3)"], tmp_path / "log", hint="reach an index")
    lines = str(failed.value).splitlines()
    assert re.fullmatch(r"the end of .*/log:", lines[0])
    assert lines[1:] == ["ERROR: No matching distribution found", "setup: exit status 3; reach an index"]


def test_a_checkout_that_was_moved_is_set_up_anew(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "setup").mkdir()
    venv, *_ = setup.steps()
    (tmp_path / "setup/venv").write_text(venv.inputs())
    assert setup.done(venv)
    monkeypatch.setattr(setup, "VENV", tmp_path / "elsewhere/.venv")
    assert not setup.done(venv)


def test_who_stops_it_is_told_that_nothing_is_lost(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_log: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "steps", lambda: (setup.Step("one", "the step", lambda: "", stopped),))
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    assert setup.main() == 130
    assert capsys.readouterr().err.endswith("setup: stopped; the next one goes on from here\n")
