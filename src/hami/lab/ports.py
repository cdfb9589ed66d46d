"""Ports for the lab's servers, kept for as long as this process lives.

A port is taken below the kernel's ephemeral range, where no outgoing connection
can land on it, and marked by an abstract socket, so that labs of several
processes stay apart and a part that restarts gets its old port back. The marks
go with the process, however it ends.
"""

import random
import socket

from hami.lab.errors import LabError

FIRST, LAST = 20000, 32000
ATTEMPTS = 200

_marks: dict[int, socket.socket] = {}


def take() -> int:
    """A free port on loopback that no other lab takes until `give_back`."""
    for _ in range(ATTEMPTS):
        port = random.randint(FIRST, LAST)  # noqa: S311 - nothing secret about it
        mark = mark_name(f"port-{port}")
        if mark is None:
            continue
        if _is_free(port):
            _marks[port] = mark
            return port
        mark.close()
    raise LabError(f"no free port between {FIRST} and {LAST}")


def give_back(port: int) -> None:
    """Let others have the port."""
    mark = _marks.pop(port, None)
    if mark:
        mark.close()


def mark_name(name: str) -> socket.socket | None:
    """Hold a machine-wide name until the socket closes or this process ends; None when somebody else holds it."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        mark.bind(f"\0hami-lab/{name}")
    except OSError:
        mark.close()
        return None
    return mark


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection in TIME_WAIT does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
