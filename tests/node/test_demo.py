"""`hami demo` as a person runs it: what it shows at its end, and what it leaves behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hami.lab import obstacle

pytestmark = [pytest.mark.lab, pytest.mark.node, pytest.mark.timeout(240)]

DEMO = [sys.executable, "-m", "hami", "demo"]


def leftovers(started: float) -> list[str]:
    """Command lines of a demo's parts that are younger than `started`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            young = process.stat().st_mtime >= started
        except OSError:
            continue
        if young and "hami-lab-" in line:
            found.append(line)
    return found


@pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))
def test_two_examples_share_a_card_a_third_waits_with_the_reason_and_nothing_is_left() -> None:
    started = time.time()
    done = subprocess.run([*DEMO, "-o", "json"], capture_output=True, text=True, check=False, timeout=200)
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
    assert leftovers(started) == []


def test_ctrl_c_ends_everything() -> None:
    started = time.time()
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "simulated nodes" in line:
            break
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 130
    demo.stdout.close()
    deadline = time.monotonic() + 10
    while leftovers(started) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert leftovers(started) == []
