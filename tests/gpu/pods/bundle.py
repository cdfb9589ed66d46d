"""Unpacks what `make gpu-bundle` packed, and starts this program again with it. Standard library only."""

import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

STARTED = "HAMI_GPU_PODS_STARTED"
FOLDER = "HAMI_GPU_PODS_FOLDER"
ARCHIVES = ("lab.tar.xz", "python.tar.xz", "hami.tar.xz")


def start_again(bundle: Path, into: Path) -> None:
    """Never returns: this interpreter, this command line, with the bundle's packages and programs."""
    begun = time.time()
    unpack(bundle, into)
    sites = [into / "hami" / "site", into / "python" / "site"]
    path = [str(site) for site in sites if site.is_dir()]
    environment = {
        **os.environ,
        "HAMI_KUBE_BIN": str(into / "lab" / "bin"),
        # Ours before whatever this interpreter has of the same name.
        "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        STARTED: f"{time.time() - begun:.1f}",
        FOLDER: str(into),
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def unpack(bundle: Path, into: Path, names: Iterable[str] = ARCHIVES) -> None:
    """Each archive in a folder named after it; side by side, since each is bound by one core."""
    running = {}
    for name in names:
        archive = bundle / name
        if not archive.is_file():
            raise SystemExit(f"{archive} is missing: make it with `make gpu-bundle`")
        folder = into / name.partition(".")[0]
        folder.mkdir(parents=True)
        words = command(archive, folder)
        running[name] = os.spawnvp(os.P_NOWAIT, words[0], words)
    for name, pid in running.items():
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise SystemExit(f"{name} cannot be unpacked")


def command(archive: Path, folder: Path) -> list[str]:
    """tar where there is xz; Python's own is slower."""
    if shutil.which("xz"):
        return ["tar", "-C", str(folder), "-xJf", str(archive)]
    # The archives are our own; releases before 3.11.4 know no filter.
    how = "{'filter': 'tar'} if hasattr(tarfile, 'tar_filter') else {}"
    text = f"import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], **({how}))"
    return [sys.executable, "-c", text, str(archive), str(folder)]


def unpacked_in() -> float | None:
    """Seconds that unpacking took; None without a bundle."""
    text = os.environ.get(STARTED)
    return float(text) if text else None


def remove() -> None:
    """What was unpacked; the last thing that a run does."""
    folder = os.environ.get(FOLDER)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
