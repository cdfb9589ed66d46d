"""Own control groups for a lab's node, on cgroup v1, v2 and the hybrid of both.

A node gets the same relative path in every hierarchy: `hami-lab/<id>/<node>`.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from hami.lab.errors import LabError

ROOT = Path("/sys/fs/cgroup")
TOP = "hami-lab"
NEEDED = {"cpu", "cpuset", "memory", "pids"}
POLL_SECONDS = 0.05


def hierarchies(root: Path = ROOT) -> tuple[Path, ...]:
    """The mounted hierarchies: one on v2, one a controller on v1, and `unified` beside them on a hybrid."""
    if (root / "cgroup.controllers").is_file():
        return (root,)
    if not root.is_dir():
        return ()
    return tuple(path for path in sorted(root.iterdir()) if (path / "cgroup.procs").is_file() and not path.is_symlink())


def path_of(identity: str, node: str) -> str:
    """The path that kubelet gets as its cgroup root."""
    return f"/{TOP}/{identity}/{node}"


def make(path: str, root: Path = ROOT) -> None:
    """Create the path in every hierarchy, with the controllers handed down."""
    for hierarchy in hierarchies(root):
        folder = hierarchy
        for step in path.strip("/").split("/"):
            _hand_down_controllers(folder)
            child = folder / step
            child.mkdir(exist_ok=True)
            _copy_cpuset(folder, child)
            folder = child
        _hand_down_controllers(folder)
        _require_controllers(folder)


def _hand_down_controllers(folder: Path) -> None:
    """On v2: let children have every controller that this level has; each alone, since one refusal refuses all."""
    available = folder / "cgroup.controllers"
    if not available.is_file():
        return
    for controller in available.read_text().split():
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue  # not to be had here; kubelet says so when it needs it


def _require_controllers(folder: Path) -> None:
    """On v2: what kubelet cannot do without must have come down to here."""
    available = folder / "cgroup.controllers"
    if not available.is_file() or folder.parts[: len(ROOT.parts) + 1] == (*ROOT.parts, "unified"):
        return  # v1, or the empty v2 beside it
    missing = NEEDED - set(available.read_text().split())
    if missing:
        raise LabError(
            f"{folder} lacks the cgroup controllers {', '.join(sorted(missing))}: the machine has none, or processes"
            " sit in a parent group, as in a container with its own cgroup namespace (docker: --cgroupns=host)"
        )


def _copy_cpuset(parent: Path, child: Path) -> None:
    """On v1 a fresh cpuset is empty, and nothing may enter it until it has cpus and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        own = child / name
        if own.is_file() and (parent / name).is_file() and not own.read_text().strip():
            inherited = (parent / name).read_text().strip()
            if inherited:
                own.write_text(inherited)


def identities(root: Path = ROOT) -> set[str]:
    """The ids of labs that have a group somewhere."""
    found: set[str] = set()
    for hierarchy in hierarchies(root):
        top = hierarchy / TOP
        if top.is_dir():
            found |= {path.name for path in top.iterdir() if path.is_dir()}
    return found


def kill(identity: str, root: Path = ROOT) -> None:
    """SIGKILL for every process in the lab's groups."""
    for folder in _folders(identity, root):
        for pid in _processes(folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def remove(identity: str, root: Path = ROOT, timeout: float = 5.0) -> list[Path]:
    """Remove the lab's groups; returns what is still there after `timeout` seconds (its processes do not end)."""
    deadline = time.monotonic() + timeout
    while True:
        left = [folder for folder in _folders(identity, root) if not _removed(folder)]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    for hierarchy in hierarchies(root):
        _removed(hierarchy / TOP)  # the last lab takes the common parent along
    return left


def _folders(identity: str, root: Path) -> Iterator[Path]:
    """The lab's groups, children before parents."""
    for hierarchy in hierarchies(root):
        for folder, _, _ in os.walk(hierarchy / TOP / identity, topdown=False):
            yield Path(folder)


def _processes(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
