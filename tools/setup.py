#!/usr/bin/env python3
"""Make this checkout runnable: virtual environment, locked packages, native parts.

Runs on a bare Python >= 3.11 (standard library only), needs no root, and does
nothing twice: each step has a stamp made from what it depends on. `--lab` also
builds the lab's Kubernetes, which takes minutes the first time on a machine.
"""

from __future__ import annotations  # an older Python gets as far as being told that it is too old

import argparse
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = ROOT / "build" / "setup"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hami"
OLDEST = (3, 11)
LOCK = ROOT / "requirements.lock"
NOISE = ("Ignoring ", "WARNING: Retrying", "Collecting ", "  Downloading ", "     ━")
"""How lines of pip begin that tell nothing of why it failed."""

HELD: list[int] = []
"""The descriptor of the lock, while it is held."""


class Failed(Exception):
    """A step that did not work; its text says what to do."""


class Step(NamedTuple):
    name: str
    title: str
    inputs: Callable[[], str]
    """A text that changes when the step must run again."""
    run: Callable[[Path], None]
    """Does it, writing to the log file given."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lab", action="store_true", help="also build the lab's Kubernetes")
    chosen = arguments.parse_args()
    try:
        require_python()
        require_compiler()
        if any(not done(step) for step in steps()):
            with alone():
                for step in steps():
                    perform(step)
    except Failed as failure:
        print(f"setup: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: stopped; the next one goes on from here", file=sys.stderr)
        return 130
    except OSError as error:  # our own files: a full disk, a tree that cannot be written
        print(f"setup: {error}; {full(STAMPS) or 'this checkout must be writable'}", file=sys.stderr)
        return 1
    if chosen.lab:
        return subprocess.run([PYTHON, "-m", "hami.lab", "build"], cwd=ROOT, check=False).returncode
    return 0


def steps() -> tuple[Step, ...]:
    return (
        Step("venv", "virtual environment", lambda: f"{sys.version_info[:2]} in {VENV}", make_venv),  # it cannot move
        Step("packages", "Python packages (hashed lock)", lambda: sha(LOCK.read_bytes()), install_packages),
        Step("native", "native parts and hami itself", native_inputs, install_hami),
    )


# -- what the machine must have --------------------------------------------------------


def require_python() -> None:
    if sys.version_info < OLDEST:
        raise Failed(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; name one with PYTHON=")


def require_compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        raise Failed("no C compiler found; install gcc or clang, or name one with CC=")


# -- the steps ---------------------------------------------------------------------------


def make_venv(log: Path) -> None:
    shutil.rmtree(VENV, ignore_errors=True)
    for other in ("packages", "native"):
        (STAMPS / other).unlink(missing_ok=True)
    call([sys.executable, "-m", "venv", VENV], log, hint="Debian and Ubuntu keep venv in the package python3-venv")


def install_packages(log: Path) -> None:
    call(
        [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", LOCK],
        log,
        hint="a package index must be reachable; pip reads PIP_INDEX_URL and PIP_FIND_LINKS",
    )


def install_hami(log: Path) -> None:
    environment = {**os.environ, "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-build-isolation",
        "--no-deps",
        "-e",
        ROOT,
    ]
    call(command, log, environment=environment, hint="the C parts did not compile")


def native_inputs() -> str:
    files = [ROOT / "pyproject.toml", ROOT / "src/hami/__init__.py", *sorted((ROOT / "native").rglob("*"))]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    for module in sorted((ROOT / "src").rglob("*.py")):  # an editable install knows each by the place it had
        digest.update(f"{module.relative_to(ROOT)}\0".encode())
    return digest.hexdigest()


# -- running a step ----------------------------------------------------------------------


@contextmanager
def alone() -> Iterator[None]:
    """One set-up of a checkout at a time: the next waits, then finds everything done. Its programs hold the lock as
    well, so one that outlives a killed set-up is waited for."""
    STAMPS.mkdir(parents=True, exist_ok=True)
    with (STAMPS / ".lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("setup: another one is at work on this checkout: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
        HELD.append(held.fileno())
        try:
            yield
        finally:
            HELD.clear()


def done(step: Step) -> bool:
    stamp = STAMPS / step.name
    return PYTHON.exists() and stamp.exists() and stamp.read_text() == step.inputs()


def perform(step: Step) -> None:
    if done(step):
        return
    wanted = step.inputs()
    log = STAMPS / f"{step.name}.log"
    log.write_bytes(b"")
    started = time.monotonic()
    bar = Bar(step.title, last_time(step.name))
    with bar:
        step.run(log)
    remember(step.name, time.monotonic() - started)
    (STAMPS / step.name).write_text(wanted)


def call(command: Iterable[object], log: Path, *, environment: dict[str, str] | None = None, hint: str) -> None:
    """Run a command into the log, keeping the bar alive; its end is shown only when it fails."""
    with log.open("ab") as sink:
        words = [str(part) for part in command]
        process = subprocess.Popen(words, stdout=sink, stderr=sink, env=environment, pass_fds=HELD)
        try:
            while process.poll() is None:
                Bar.tick()
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = ending(log.read_text(errors="replace"))
        if os.strerror(errno.ENOSPC) in tail:
            hint = full(log) or "the folder for temporary files is full; name another one with TMPDIR="
        elif not tail:  # perhaps there was no room to say so
            hint = full(log) or hint
        raise Failed(f"the end of {log}:\n{tail}\nsetup: exit status {process.returncode}; {hint}")


def ending(text: str) -> str:
    """The last lines that tell something: pip says the same thing five times before it gives up."""
    told = [line[:300] for line in text.splitlines() if line.strip() and not line.startswith(NOISE)]
    return "\n".join(told[-15:])


def full(place: Path) -> str:
    """What to do when there is hardly any room on the disk a file lies on; empty when there is."""
    there = next(folder for folder in place.parents if folder.is_dir())
    free_mib = shutil.disk_usage(there).free >> 20
    return f"{free_mib} MiB are free in {there}; a checkout that is set up takes 1 GiB" if free_mib < 1024 else ""


class Bar:
    """One line that fills while a step runs, by the time it took last; plain lines where there is no terminal."""

    current: Bar | None = None

    def __init__(self, title: str, last: float | None) -> None:
        self.title = title
        self.last = last
        self.started = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> None:
        Bar.current = self
        if not self.terminal:
            before = f" (last time {self.last:.0f} s)" if self.last else ""
            print(f"setup: {self.title}{before} ...", file=sys.stderr, flush=True)

    def __exit__(self, kind: object, *_: object) -> None:
        Bar.current = None
        mark = "failed after" if kind else "done in"
        if self.terminal:
            sys.stderr.write("\r\033[K")
        print(f"setup: {self.title} {mark} {time.monotonic() - self.started:.1f} s", file=sys.stderr, flush=True)

    @classmethod
    def tick(cls) -> None:
        if cls.current and cls.current.terminal:
            cls.current.draw()

    def draw(self) -> None:
        gone = time.monotonic() - self.started
        part = min(gone / self.last, 1.0) if self.last else (gone % 10) / 10
        width = 24
        filled = int(part * width)
        before = f"last time {self.last:.0f} s" if self.last else "first time here"
        sys.stderr.write(f"\r\033[K{self.title:<34} [{'#' * filled}{'.' * (width - filled)}] {gone:4.0f} s, {before}")
        sys.stderr.flush()


def last_time(name: str) -> float | None:
    try:
        seconds = json.loads((CACHE / "setup-times.json").read_text())[name]
    except (OSError, ValueError, KeyError):
        return None
    return float(seconds)


def remember(name: str, seconds: float) -> None:
    """Kept outside the tree, so that a fresh clone knows too. Losing it costs nothing."""
    file = CACHE / "setup-times.json"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        times = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**times, name: round(seconds, 1)}))
    except (OSError, ValueError):
        pass


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
