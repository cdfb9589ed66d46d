"""Nothing outlives a lab: not after a stop, not after `kill -9` of its harness, not after a kill of its guard too."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hami.lab import Lab, cgroups, net, obstacle, sweep

Labs = Callable[..., Lab]

# A harness of its own, so that it can be killed: it starts a lab, tells its id, and waits for its end.
HARNESS = """
import json, os, sys, time
from hami.lab import Lab
lab = Lab(nodes=int(sys.argv[1]), scheduler=False)
lab.start()
lab.program(["sh", "-c", "sleep 1000 & sleep 1000"])
if lab.nodes:
    pod = {"containers": [{"name": "c", "image": "hami.io/lab/tools:1"}], "terminationGracePeriodSeconds": 0}
    pod |= {"nodeName": "node-1", "automountServiceAccountToken": False}
    lab.wait_for("account", lambda: lab.get("serviceaccount", "default"))
    lab.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod})
    lab.wait_for("pod", lambda: lab.get("pod", "pod")["status"]["phase"] == "Running")
print(json.dumps({"id": lab.id, "guard": lab.guard_pid, "folder": str(lab.folder)}), flush=True)
time.sleep(1000)
"""


@contextmanager
def harness(nodes: int) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    child = subprocess.Popen([sys.executable, "-c", HARNESS, str(nodes)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout
        yield child, json.loads(child.stdout.readline())
    finally:
        child.kill()
        child.communicate()


def leftovers(identity: str) -> dict[str, object]:
    """Everything on this machine that has the lab's name."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if identity in line]
    found: dict[str, object] = {
        "processes": sweep.marked().get(identity, []),
        "cgroups": identity in cgroups.identities(),
        "bridges": net.bridges().get(identity, []),
        "mounts": mounts,
        "folder": sweep.temporary_folder(identity).exists(),
    }
    return {kind: left for kind, left in found.items() if left}


def gone_within(seconds: float, identity: str) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    while (left := leftovers(identity)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


# With a node where this machine can run one; without root the control plane still proves itself.
NODES = 0 if obstacle() else 1
MADE = {"processes", "folder"} | ({"cgroups", "bridges"} if NODES else set())

pytestmark = [pytest.mark.lab] + ([pytest.mark.node] if NODES else [])


def test_a_stop_leaves_nothing(new_lab: Labs) -> None:
    lab = new_lab(nodes=NODES, scheduler=False)
    lab.program(["sh", "-c", "sleep 1000 & sleep 1000"])
    assert set(leftovers(lab.id)) >= MADE
    lab.stop()
    assert leftovers(lab.id) == {}


def test_a_killed_harness_leaves_nothing() -> None:
    with harness(NODES) as (child, seen):
        assert set(leftovers(seen["id"])) >= MADE
        child.kill()
        assert gone_within(10, seen["id"]) == {}


def test_when_the_guard_is_killed_too_the_next_lab_sweeps() -> None:
    with harness(NODES) as (child, seen):
        os.kill(seen["guard"], signal.SIGKILL)
        child.kill()
        child.wait()
        assert leftovers(seen["id"]), "a folder, a bridge and cgroups cannot go by themselves"
        sweep.sweep_dead()  # what every start of a lab does first
        assert gone_within(10, seen["id"]) == {}


def test_a_living_lab_is_not_swept(lab: Lab) -> None:
    sweep.sweep_dead()
    assert lab.kubectl("get", "--raw", "/readyz") == "ok"
