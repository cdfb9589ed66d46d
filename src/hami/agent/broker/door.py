"""One listening socket a grant: who connects here is in that container, and nobody can say otherwise.

Sockets are SEQPACKET: a message comes whole or not at all, and end-of-file is the notice of death
(docs/reference/broker.md). Knows nothing of what is said.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path

from msgspec import Struct

NAME = "sock"
FOLDER = "broker"
"""Of the grant's folder: what is mounted, so that a restarted agent can put a new socket there."""
BACKLOG = 512
_CREDENTIALS = struct.Struct("iII")


class Peer(Struct, frozen=True):
    """Who connected, from the kernel: a pid of our own pid namespace, 0 where that does not reach."""

    pid: int
    uid: int


def listen(folder: Path) -> socket.socket:
    """Listen at ``folder/broker/sock``, in place of whatever was left there. Raises OSError."""
    place = folder / FOLDER
    place.mkdir(mode=0o755, exist_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _bind(made, place)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _bind(made: socket.socket, place: Path) -> None:
    """Under a name of its own, then renamed: a client finds the old socket or the new one. Paths may be long."""
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fresh = f".{NAME}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=opened)
        made.bind(f"/proc/self/fd/{opened}/{fresh}")
        os.chmod(fresh, 0o666, dir_fd=opened)  # noqa: S103 - any user of the container may run CUDA
        os.rename(fresh, NAME, src_dir_fd=opened, dst_dir_fd=opened)
    finally:
        os.close(opened)


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
