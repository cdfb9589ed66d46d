"""Removes what a lab leaves when its harness is killed: processes, control groups, bridges, a temporary folder.

Nothing has to be written down for that: processes carry the lab's id in their
environment, groups and bridges in their names, and a living lab holds a
machine-wide name that the kernel frees when the harness ends, however it ends.
"""

import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path

from hami.lab import cgroups, net, ports

FOLDER_PREFIX = "hami-lab-"
ID_VARIABLE = b"HAMI_LAB_ID="
PROC = Path("/proc")
IDENTITY = re.compile(r"[0-9a-f]{8}")


def alive(identity: str) -> socket.socket | None:
    """Hold the lab's name: keep the socket for as long as the lab lives. None when it is held already."""
    return ports.mark_name(f"lab-{identity}")


def sweep(identity: str) -> list[str]:
    """Remove everything of one lab; returns what could not be removed, in words."""
    root = os.geteuid() == 0
    if root:
        cgroups.kill(identity)
    for pid in marked().get(identity, ()):
        _kill(pid)
    left = _sweep_node(identity) if root else []
    shutil.rmtree(temporary_folder(identity), ignore_errors=True)
    return left


def _sweep_node(identity: str) -> list[str]:
    """What only a node leaves, and so only root can have made."""
    left = [f"cgroup {folder}" for folder in cgroups.remove(identity)]
    for bridge in net.bridges().get(identity, ()):
        try:
            net.remove_bridge(bridge)
        except OSError as problem:
            left.append(f"bridge {bridge}: {problem}")
    return left


def sweep_dead() -> list[str]:
    """Sweep every lab of this machine whose harness is gone; returns what is left, in words."""
    left: list[str] = []
    for identity in _seen():
        mark = alive(identity)
        if mark is None:
            continue
        with mark:
            left += sweep(identity)
    return left


def temporary_folder(identity: str) -> Path:
    """Where a lab lives that was given no folder."""
    return Path(tempfile.gettempdir()) / f"{FOLDER_PREFIX}{identity}"


def marked() -> dict[str, list[int]]:
    """Processes with a lab's id in their environment (those that we may look at), ourselves left out."""
    found: dict[str, list[int]] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            if variable.startswith(ID_VARIABLE):
                found.setdefault(variable.removeprefix(ID_VARIABLE).decode(), []).append(int(entry.name))
    return found


def _seen() -> set[str]:
    folders = {path.name.removeprefix(FOLDER_PREFIX) for path in temporary_folder("").parent.glob(f"{FOLDER_PREFIX}*")}
    named = folders | cgroups.identities() | set(net.bridges()) | set(marked())
    return {identity for identity in named if IDENTITY.fullmatch(identity)}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
