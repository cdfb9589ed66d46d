"""`hami demo` as a person runs it: what it shows at its end, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hami.lab import obstacle

pytestmark = [pytest.mark.lab, pytest.mark.node, pytest.mark.timeout(240)]

DEMO = [sys.executable, "-m", "hami", "demo"]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the demo's lab lives; short, since sockets lie below it, and named in its programs' command lines."""
    with tempfile.TemporaryDirectory(prefix="hd-", dir="/tmp") as folder:
        yield Path(folder)


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place)}


@contextmanager
def running(place: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo, with both of its outputs as one; killed where the test fails, which would wait for it for good."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen([*DEMO, *words], env=environment(place), **pipes) as demo:
        try:
            yield demo
        except BaseException:
            demo.kill()
            raise


def leftovers(place: Path) -> list[str]:
    """Command lines of what still runs there; other labs of the machine are none of ours."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(place) in line:
            found.append(line)
    return found + [str(path) for path in place.iterdir()]


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
def test_two_examples_share_a_card_a_third_waits_with_the_reason_and_nothing_is_left(place: Path) -> None:
    command = [*DEMO, "-o", "json"]
    done = subprocess.run(command, env=environment(place), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    scene = json.loads(done.stdout)
    pods = {pod["name"].partition("-")[0]: pod for pod in scene["pods"]}
    (notebook,), (inference,) = pods["notebook"]["slices"], pods["inference"]["slices"]
    assert notebook["card"] == inference["card"]
    assert (notebook["mem_mib"], inference["mem_mib"]) == (16000, 24000)
    assert pods["notebook"]["node"] == pods["inference"]["node"] == "gpu-node"
    assert "CardInsufficientMemory" in pods["too"]["waits_for"]
    assert "missing" in pods["too"]["waits_for"]
    assert all(pod["phase"] == "Running" and pod["granted"] for name, pod in pods.items() if name != "too")
    assert pods["cpu"]["slices"] == []
    assert leftovers(place) == []


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
def test_a_cluster_that_is_kept_answers_the_commands_that_are_named(place: Path, tmp_path: Path) -> None:
    with running(place, "--keep") as demo:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line.strip())
            if "Logs are in" in line:
                break
        exports = [line for line in said if line.startswith("export ")]
        bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}  # kubectl keeps a cache there
        for word, status, told in (
            ("kubectl describe pod", 0, "FailedScheduling"),
            ("hami explain pod", 1, "What would make it fit"),
            ("hami fit", 0, "fits on"),
            ("hami frag", 0, "Fragmentation"),
            ("hami limits top", 0, "No slice here has used CUDA yet."),
        ):
            (command,) = [line for line in said if line.startswith(word)]
            shell = ["sh", "-c", "\n".join([*exports, command])]
            done = subprocess.run(shell, env=bare, capture_output=True, text=True, check=False, timeout=60)
            assert (done.returncode, told in done.stdout) == (status, True), done.stderr
        shell = ["sh", "-c", "\n".join([*exports, "kubectl describe pod notebook"])]
        first = subprocess.run(shell, env=bare, capture_output=True, text=True, check=True, timeout=60).stdout
        assert "FailedScheduling" not in first, "it was submitted before the node offered its cards"
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        demo.wait(60)
    assert leftovers(place) == []


def test_ctrl_c_ends_everything(place: Path) -> None:
    with running(place) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "simulated nodes" in line:
                break
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(60) == 130
    deadline = time.monotonic() + 10
    while leftovers(place) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert leftovers(place) == []
