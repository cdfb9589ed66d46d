"""One long-running program of the lab: own process group, own log file, dies with us.

`Process` starts, waits, stops, kills and restarts. It knows nothing about
Kubernetes. Every process carries HAMI_LAB_ID in its environment: that is how a
sweep finds what a killed harness left behind (`hami.lab.sweep`).
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from hami.lab.errors import LabError

LEASH = Path(__file__).with_name("leash.py")
ID_VARIABLE = "HAMI_LAB_ID"
POLL_SECONDS = 0.02
TAIL_LINES = 25

Probe = Callable[[], object]


class Process:
    """A program with its log. `command` is looked at again at each start, so a restart can change it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.environment = dict(environment or {})
        self.folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Of the last run; None while it runs or before the first start. Negative: the signal that ended it."""
        return self._child.poll() if self._child else None

    def start(self) -> None:
        """Start it; the log is appended to."""
        if self.running:
            raise LabError(f"{self.name} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._child = SPAWNER.spawn(self._spawn)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self.command]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, probe: Probe, timeout: float = 60.0) -> None:
        """Until `probe()` returns something true; what it raises counts as not yet. Seconds.

        LabError with the end of the log when the program ends first or the time is up.
        """
        deadline = time.monotonic() + timeout
        reason: object = "its probe said no"
        while time.monotonic() < deadline:
            if not self.running:
                raise LabError(f"{self.name} ended with {self.returncode} before it was ready\n{self.tail()}")
            try:
                if probe():
                    return
            except (OSError, LabError) as problem:
                reason = problem
            time.sleep(POLL_SECONDS)
        raise LabError(f"{self.name} was not ready after {timeout:g} s ({reason})\n{self.tail()}")

    def signal(self, number: int) -> None:
        """Send a signal to the whole group; one that has ended gets none."""
        if self._child is None:
            return
        try:
            os.killpg(self._child.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """End it at once (SIGKILL) and reap it."""
        self.signal(signal.SIGKILL)
        self._reap(None)

    def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, kill it when it has not after `grace` seconds."""
        self.signal(signal.SIGTERM)
        if not self._reap(grace):
            self.kill()

    def wait(self, timeout: float) -> int:
        """Wait for its end and return its exit code; LabError when it still runs after `timeout` seconds."""
        if not self._reap(timeout) or self._child is None or self._child.returncode is None:
            raise LabError(f"{self.name} still runs after {timeout:g} s\n{self.tail()}")
        return self._child.returncode

    def restart(self, grace: float = 5.0) -> None:
        self.stop(grace)
        self.start()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The end of the log, with its path."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return f"({self.log} cannot be read)"
        return f"--- end of {self.log} ---\n" + "\n".join(text.splitlines()[-lines:])

    def _reap(self, timeout: float | None) -> bool:
        """Wait for the program and for everything else in its group (it may be the parent of the real one)."""
        if self._child is None:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        while _group_lives(self._child.pid):
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def _group_lives(group: int) -> bool:
    """Whether a process of the group still runs. A zombie does not, whenever its new parent gets round to it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(_group_and_zombie(entry) == (group, False) for entry in Path("/proc").glob("[0-9]*"))


def _group_and_zombie(entry: Path) -> tuple[int, bool] | None:
    """Process group, and whether it is a zombie."""
    try:
        state, _, group, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return int(group), state in {"Z", "X"}


class Spawner:
    """Starts every process from one thread that lives as long as we do.

    The parent-death signal is tied to the *thread* that forked: without this a
    program started from a worker thread would die with that thread.
    """

    def __init__(self) -> None:
        self._asks: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._asks = queue.SimpleQueue()
        self._owner = 0
        self._lock = threading.Lock()

    def spawn(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._owner != os.getpid():  # the first use, or the first after a fork
                self._owner = os.getpid()
                threading.Thread(target=self._serve, name="lab-spawner", daemon=True).start()
        answer: Future[subprocess.Popen[bytes]] = Future()
        self._asks.put((start, answer))
        return answer.result()

    def _serve(self) -> None:
        while True:
            start, answer = self._asks.get()
            try:
                answer.set_result(start())
            except BaseException as problem:  # the asker gets it
                answer.set_exception(problem)


SPAWNER = Spawner()
