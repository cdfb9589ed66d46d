"""Builds the lab's programs from the Go modules under `tools/kube` into a cache outside the tree.

Each module becomes one folder, renamed into place when it is whole: a build cut
short leaves nothing that looks finished, and the next one goes on with the
modules that are missing (Go's own cache keeps the packages already compiled).
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hami.lab import binaries, toolchain, versions
from hami.lab.binaries import Binaries
from hami.lab.errors import CommandFailed, LabError
from hami.lab.process import LEASH
from hami.lab.versions import MODULES, Module

TICK_SECONDS = 0.25
TIMINGS = "timings.json"


@dataclass(frozen=True)
class Progress:
    """One moment of a build.

    `expected_seconds` is how long this step took last time here, or is typical (`measured` False).
    """

    step: str
    number: int
    of: int
    elapsed_seconds: float
    expected_seconds: float
    measured: bool
    finished: bool


Report = Callable[[Progress], None]
Notice = Callable[[str], None]


def ensure(
    modules: Iterable[Module] = MODULES, report: Report = lambda _: None, notice: Notice = lambda _: None
) -> Binaries:
    """All programs of these modules, built where they are missing. Raises LabError saying what stands in the way."""
    wanted = tuple(modules)
    missing = binaries.find(wanted).missing(wanted)
    if missing:
        build(missing, report, notice)
    found = binaries.find(wanted)
    still = found.missing(wanted)
    if still:
        raise LabError(f"the build left no {', '.join(module.name for module in still)}")
    return found


def build(modules: Iterable[Module], report: Report = lambda _: None, notice: Notice = lambda _: None) -> None:
    """Build these modules, each into its own folder of the cache."""
    source = versions.source_folder()
    cache = binaries.cache_root()
    with _alone(cache, notice):
        pending = [module for module in modules if not _target(module, source, cache).is_dir()]
        if not pending:
            return
        _check_compiler(pending)
        go = toolchain.find(source, cache.parent / "go", notice)
        for number, module in enumerate(pending, start=1):
            step = _Step(module, versions.module_folder(module, source), number, len(pending))
            _build_one(go, step, cache, report)


def _target(module: Module, source: Path, cache: Path) -> Path:
    return cache / versions.key(module, versions.module_folder(module, source))


@contextmanager
def _alone(cache: Path, notice: Notice) -> Iterator[None]:
    """Hold the cache's lock; leftovers of a build that was cut short go."""
    with _lock_file(cache) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notice("another build is running: waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        for partial in cache.glob(".partial-*"):
            shutil.rmtree(partial, ignore_errors=True)
        yield


def _lock_file(cache: Path) -> IO[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return (cache / ".lock").open("w")
    except OSError as fault:
        way_out = f"set XDG_CACHE_HOME to a folder with 5 GB, or {binaries.BIN_VARIABLE} to finished programs"
        raise LabError(f"what is built is kept in {cache}: {fault.strerror}; {way_out}") from fault


def _check_compiler(modules: Iterable[Module]) -> None:
    needs = [module.name for module in modules if module.cgo]
    if needs and not shutil.which(os.environ.get("CC", "gcc")):
        raise LabError(
            f"{', '.join(needs)} needs a C compiler: install gcc with the static C library (Debian: gcc libc6-dev)"
        )


@dataclass(frozen=True)
class _Step:
    module: Module
    folder: Path
    number: int
    of: int


def _build_one(go: toolchain.Go, step: _Step, cache: Path, report: Report) -> None:
    module = step.module
    last = _timings(cache).get(module.name)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    began = time.monotonic()

    def moment(finished: bool) -> Progress:
        elapsed = time.monotonic() - began
        expected = module.typical_seconds if last is None else last
        return Progress(module.name, step.number, step.of, elapsed, expected, last is not None, finished)

    _run(_command(go, module, step.folder, partial), step.folder, module, lambda: report(moment(finished=False)))
    for link in module.links:
        (partial / link).symlink_to(str(module.binary))
    partial.chmod(0o755)
    partial.rename(cache / versions.key(module, step.folder))
    _remember(cache, module.name, time.monotonic() - began)
    report(moment(finished=True))


def _command(go: toolchain.Go, module: Module, folder: Path, output: Path) -> list[str]:
    flags = versions.link_flags(module, versions.version(module, folder))
    command = [str(go.program), "build", "-trimpath", "-ldflags", flags]
    if module.tags:
        command += ["-tags", ",".join(module.tags)]
    return [*command, "-o", f"{output}/{module.binary or ''}", *module.packages]


def _run(command: list[str], folder: Path, module: Module, tick: Callable[[], None]) -> None:
    environment = dict(os.environ, GOTOOLCHAIN="local", GOFLAGS="-mod=readonly", CGO_ENABLED=str(int(module.cgo)))
    with tempfile.TemporaryFile("w+") as output:
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid())]
        child = subprocess.Popen(
            [*leash, *command], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while child.poll() is None:
                tick()
                time.sleep(TICK_SECONDS)
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
        output.seek(0)
        text = output.read()
    if child.returncode:
        raise CommandFailed(f"building {module.name}{_advice(text)}", child.returncode, text[-3000:])


def _advice(output: str) -> str:
    """The likely way out, from what Go printed."""
    if "dial tcp" in output or "no such host" in output or "connection refused" in output:
        return " (the Go module proxy cannot be reached; set GOPROXY, or HAMI_KUBE_BIN to finished programs)"
    if "No space left" in output or "no space left" in output:
        return " (the disk is full; a build needs about 5 GB below GOCACHE and GOMODCACHE)"
    if "cannot find -l" in output:
        return " (the static C library is missing; Debian: libc6-dev)"
    if "signal: killed" in output:
        return " (killed, most likely for memory: linking needs about 3 GB)"
    return ""


def _timings(cache: Path) -> dict[str, float]:
    try:
        kept = json.loads((cache / TIMINGS).read_text())
    except (OSError, ValueError):
        return {}
    return {name: float(seconds) for name, seconds in kept.items()} if isinstance(kept, dict) else {}


def _remember(cache: Path, step: str, seconds: float) -> None:
    kept = _timings(cache) | {step: round(seconds, 1)}
    partial = cache / f".partial-{TIMINGS}"
    partial.write_text(json.dumps(kept, indent=1, sort_keys=True))
    partial.replace(cache / TIMINGS)
