"""A lab that stays up: `up` holds it, in this process or one of its own; `down` and `status` find it by its folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hami.lab import binaries
from hami.lab.errors import LabError
from hami.lab.lab import Lab
from hami.lab.process import Process

START_SECONDS = 180.0
STOP_SECONDS = 30.0
WATCH_SECONDS = 1.0


@dataclass(frozen=True)
class State:
    """What `status` and `down` need to know of a running lab."""

    pid: int
    id: str
    kubeconfig: str
    kubectl: str
    processes: dict[str, int]


class Place:
    """The folder of a resident lab; its state file exists while the lab runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._file = self.folder / "lab.json"

    @property
    def log(self) -> Path:
        """What a detached lab prints. Beside the folder, which a start empties."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def read(self) -> State:
        try:
            return State(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError) as problem:
            raise LabError(f"no lab runs in {self.folder} ({problem})") from problem

    def write(self, state: State) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(state), indent=1))
        partial.replace(self._file)

    def remove(self) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            self._file.unlink()

    def running(self) -> State | None:
        """The state, when its process still lives (a number that was given anew to another program does not count)."""
        try:
            state = self.read()
            words = Path(f"/proc/{state.pid}/cmdline").read_bytes().split(b"\0")
        except (LabError, OSError):
            return None
        return state if b"up" in words else None


def default_folder() -> Path:
    return binaries.cache_root().with_name("lab")


def serve(place: Place, nodes: int, ready: Callable[[State], None]) -> None:
    """Hold a lab until SIGINT or SIGTERM; say which part ended by itself."""
    if place.running():
        raise LabError(f"a lab runs in {place.folder} already; end it with `down`, or name another --folder")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ask_to_end)
    try:
        with Lab(place.folder, nodes=nodes) as lab:
            state = _state(lab)
            place.write(state)
            ready(state)
            _watch(lab)
    except Ended:
        return
    finally:
        place.remove()


class Ended(BaseException):
    """Somebody asked this process to end. No fault: `except Exception` must not stop it on its way."""


def _ask_to_end(_number: int, _frame: object) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the first one counts; the cleaning up is not to be cut short
    raise Ended


def start_detached(place: Place, nodes: int) -> None:
    """Start `up` in a session of its own and wait until its cluster is ready."""
    if place.running():
        raise LabError(f"a lab runs in {place.folder} already; end it with `down`, or name another --folder")
    place.remove()
    place.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hami.lab", "up", "--folder", str(place.folder), "--nodes", str(nodes)]
    with place.log.open("w") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while not place.running():
        if child.poll() is not None or time.monotonic() > deadline:
            child.terminate()
            raise LabError(f"the lab did not start:\n{place.log.read_text()[-3000:]}")
        time.sleep(0.1)


def stop(place: Place) -> bool:
    """End the lab of this folder; False when none runs there."""
    state = place.running()
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while place.running():
        if time.monotonic() > deadline:
            raise LabError(f"the lab (process {state.pid}) still runs {STOP_SECONDS:g} s after it was asked to end")
        time.sleep(0.05)
    return True


def _processes(lab: Lab) -> list[Process]:
    parts = lab.control_plane.parts() + [
        part for node in lab.nodes.values() for part in (node.containerd, node.kubelet)
    ]
    return [part.process for part in parts] + lab.programs


def _state(lab: Lab) -> State:
    numbers = {process.name: process.pid for process in _processes(lab)}
    return State(os.getpid(), lab.id, str(lab.kubeconfig), str(lab.binaries["kubectl"]), numbers)


def _watch(lab: Lab) -> None:
    told: set[str] = set()
    while True:
        time.sleep(WATCH_SECONDS)
        for process in _processes(lab):
            if not process.running and process.name not in told:
                told.add(process.name)
                print(f"{process.name} ended with {process.returncode}; see {process.log}", file=sys.stderr)
