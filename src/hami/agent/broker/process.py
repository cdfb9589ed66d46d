"""What /proc says of a process of the host: whose it is, and since when. Files there may vanish between two reads."""

import os
import re
import time
from pathlib import Path

_POD_UID = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_SINCE = 19
"""Of the fields behind the name, which may hold anything but ends with the last bracket."""


def pod_uid(pid: int, proc: Path = Path("/proc")) -> str | None:
    """The pod that a process belongs to, by its cgroup; None where it belongs to none, or is gone."""
    try:
        text = (proc / str(pid) / "cgroup").read_text(errors="replace")
    except OSError:
        return None
    match = _POD_UID.search(text)
    return match.group(1).replace("_", "-") if match else None


def began(pid: int, proc: Path = Path("/proc")) -> int:
    """Clock ticks from the machine's start to the process's: with the pid it names one process. 0: it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
        return int(text.rpartition(")")[2].split()[_SINCE])
    except (OSError, ValueError, IndexError):
        return 0


def ticks() -> int:
    """Now, as `began` tells it."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
