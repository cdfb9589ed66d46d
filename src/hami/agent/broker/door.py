"""One listening socket a grant: who connects here is in that container, and nobody can say otherwise.

Sockets are SEQPACKET: a message comes whole or not at all, and end-of-file is the notice of death
(docs/reference/broker.md). Knows nothing of what is said.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

NAME = "sock"
FRESH = f".{NAME}.new"
FOLDER = "broker"
"""Of the grant's folder: what is mounted, so that a restarted agent can put a new socket there."""
BACKLOG = 512
_CREDENTIALS = struct.Struct("iII")


class Peer(Struct, frozen=True):
    """Who connected, from the kernel: a pid of our own pid namespace, 0 where that does not reach."""

    pid: int
    uid: int


class Door(NamedTuple):
    """A listening socket, and which file it is found by."""

    socket: socket.socket
    file: tuple[int, int]
    """Device and inode."""


def listen(folder: Path) -> Door:
    """Listen at ``folder/broker/sock``, in place of whatever was left there. Raises OSError."""
    place = folder / FOLDER
    place.mkdir(mode=0o755, exist_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        file = _bind(made, place)
    except OSError:
        made.close()
        raise
    return Door(made, file)


def _bind(made: socket.socket, place: Path) -> tuple[int, int]:
    """Under another name, listening, then renamed: a client finds the old socket or the new one. Paths may be long."""
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(FRESH, dir_fd=opened)
        made.bind(f"/proc/self/fd/{opened}/{FRESH}")
        os.chmod(FRESH, 0o666, dir_fd=opened)  # noqa: S103 - any user of the container may run CUDA
        made.listen(BACKLOG)
        status = os.stat(FRESH, dir_fd=opened, follow_symlinks=False)
        os.rename(FRESH, NAME, src_dir_fd=opened, dst_dir_fd=opened)
    finally:
        os.close(opened)
    return status.st_dev, status.st_ino


def found(folder: Path, door: Door) -> bool:
    """Whether who looks for the socket finds this one: its file, or the folder, may be another's or gone by now."""
    try:
        status = os.lstat(f"{folder}/{FOLDER}/{NAME}")
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == door.file


def peer(connection: socket.socket) -> Peer:
    """Raises OSError."""
    size = _CREDENTIALS.size
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid, uid)


def witness(who: Peer) -> int | None:
    """A descriptor that becomes readable when that process ends, whoever else has its socket by then.

    None where its pid says nothing here. Raises ProcessLookupError when it has ended already, or another OSError.
    """
    return os.pidfd_open(who.pid) if who.pid > 0 else None
