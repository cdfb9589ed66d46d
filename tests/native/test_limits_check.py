"""`hami limits check` on the simulated driver: what holds passes, what does not fails, and what is missing is named."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Container

pytestmark = pytest.mark.realtime
LIMITED = {
    "CUDA_DEVICE_MEMORY_LIMIT": "4g",
    "CUDA_DEVICE_SM_LIMIT": "40",
    "GPU_CORE_UTILIZATION_POLICY": "force",
}


def run(container: Container, *words: str, plain: bool = False, **limits: str) -> "subprocess.CompletedProcess[str]":
    """The command as a person in that container starts it; `plain`: on a host, without the library."""
    env = container.environment(**limits)
    if plain:
        env.pop("LD_PRELOAD")
    if "--card" not in words:
        words = ("--card", "0", *words)  # the container has two
    command = [sys.executable, "-m", "hami", "limits", "check", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def test_a_container_that_is_held_passes_row_by_row(container: Container) -> None:
    done = run(container, "--seconds", "1", "-o", "json", **LIMITED)
    told = json.loads(done.stdout)
    assert (done.returncode, set(told)) == (0, {"card", "driver", "rows"}), done.stdout + done.stderr
    assert all(set(row) == {"name", "limit", "measured", "ok"} and row["ok"] for row in told["rows"])
    assert {row["limit"] for row in told["rows"]} == {4096, 40}
    assert "4096 MiB and 40 % of the time" in done.stderr


def test_each_card_of_a_slice_is_held_to_its_own_limits(container: Container) -> None:
    """Unless one of them is asked for. The second is said to be held to less than it is: it alone fails."""
    own = {**LIMITED, "CUDA_DEVICE_MEMORY_LIMIT_1": "2g", "CUDA_DEVICE_SM_LIMIT": "0"}
    done = run(container, "--card", "all", "--seconds", "0.5", "-o", "json", **own)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert done.returncode == 0, done.stderr
    sizes = {name: (row["limit"], row["ok"]) for name, row in rows.items() if "memory: linear" in name}
    assert sizes == {"card 0: memory: linear, MiB": (4096, True), "card 1: memory: linear, MiB": (2048, True)}
    done = run(container, "--card", "all", "--memory", "4096", "--seconds", "0.5", "-o", "json", **own)
    failed = {row["name"].partition(":")[0] for row in json.loads(done.stdout)["rows"] if row["ok"] is False}
    assert (done.returncode, failed) == (1, {"card 1"})


def test_one_card_of_several_is_measured_where_it_is_asked_for(container: Container) -> None:
    own = {**LIMITED, "CUDA_DEVICE_MEMORY_LIMIT_1": "2g", "CUDA_DEVICE_SM_LIMIT": "0"}
    rows = json.loads(run(container, "--card", "1", "-o", "json", **own).stdout)["rows"]
    assert {row["limit"] for row in rows} == {2048}
    uuid = container.bench.uuid(1)
    rows = json.loads(run(container, "--card", uuid, "-o", "json", **own).stdout)["rows"]
    assert {row["limit"] for row in rows} == {2048}
    done = run(container, "--card", "2", **own)
    assert (done.returncode, "CUDA counts 2 here" in done.stderr) == (2, True)


def test_a_card_without_room_keeps_no_other_from_being_measured_and_is_named(container: Container) -> None:
    own = {
        **LIMITED,
        "CUDA_DEVICE_MEMORY_LIMIT_0": "1m",
        "CUDA_DEVICE_MEMORY_LIMIT_1": "2g",
        "CUDA_DEVICE_SM_LIMIT": "0",
    }
    done = run(container, "--card", "1", "-o", "json", **own)
    assert done.returncode == 0, done.stderr
    assert {row["limit"] for row in json.loads(done.stdout)["rows"]} == {2048}
    done = run(container, "--card", "all", **own)
    assert (done.returncode, "no room to measure on card 0" in done.stderr) == (3, True)


def test_a_limiter_that_is_off_fails_and_says_where(container: Container) -> None:
    """The negative control: its limiter of time is off, and it has more memory than is said to hold."""
    off = LIMITED | {"GPU_CORE_UTILIZATION_POLICY": "disable"}
    done = run(container, "--seconds", "0.5", "--memory", "2048", "--cores", "40", "-o", "json", **off)
    rows = json.loads(done.stdout)["rows"]
    assert done.returncode == 1
    assert not any(row["ok"] for row in rows if row["name"].startswith(("memory: ", "time: ")))
    assert all(row["measured"] > 60 for row in rows if row["name"].startswith("time: ") and row["name"].endswith(", %"))


def test_on_a_host_limits_are_set_by_hand_and_the_controls_show_that_the_checks_can_fail(container: Container) -> None:
    done = run(container, "--seconds", "0.5", "-o", "json", plain=True)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    controls = [row for name, row in rows.items() if name.startswith("control: ")]
    assert len(controls) == 2
    assert all(row["ok"] and row["measured"] > row["limit"] for row in controls)
    assert all(row["ok"] for name, row in rows.items() if name.startswith("memory: "))


def test_a_percent_that_holds_only_beside_others_is_not_judged_alone(container: Container) -> None:
    done = run(container, "--seconds", "0.5", "-o", "json", **LIMITED | {"GPU_CORE_UTILIZATION_POLICY": "default"})
    rows = json.loads(done.stdout)["rows"]
    assert done.returncode == 0
    assert [row["ok"] for row in rows if row["name"] == "time, %"] == [None]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_it_finds_nothing_left_behind(container: Container, tmp_path: Path, number: signal.Signals) -> None:
    """By Ctrl-C, by a signal, by closing the terminal: the card is free, and so is the folder of ledgers."""
    env = container.environment(**LIMITED, TMPDIR=str(tmp_path))
    # Under nohup, or in the background of a shell, it would be ignored, and rightly so.
    heeded = ["env", f"--default-signal={number.name.removeprefix('SIG')}"]
    command = [sys.executable, "-m", "hami", "limits", "check", "--seconds", "30", "--card", "0", "--memory", "4096"]
    with subprocess.Popen([*heeded, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        deadline = time.monotonic() + 60
        while not (begun := [*tmp_path.glob("hami-limits-*")] and children.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(number)
        said, _ = running.communicate(timeout=60)
    assert (running.returncode, said) == (130 if number is signal.SIGINT else 128 + number, b"")
    assert [*tmp_path.glob("hami-limits-*")] == []
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in begun)


def test_where_nothing_can_be_checked_it_says_what_is_missing(container: Container) -> None:
    no_driver = {key: value for key, value in os.environ.items() if not key.startswith("LD_")}
    command = [sys.executable, "-m", "hami", "limits", "check"]
    done = subprocess.run(command, env=no_driver, capture_output=True, text=True, check=False)
    assert (done.returncode, "no card to measure" in done.stderr) == (3, True)
    done = run(container)
    assert (done.returncode, "no limit to check" in done.stderr) == (3, True)
    done = run(container, "--cores", "30", plain=True)
    assert (done.returncode, "it is not here" in done.stderr) == (2, True)
