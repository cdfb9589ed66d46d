"""What a process used: CPU seconds and resident memory, from /proc."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def child_of(pid: int) -> int:
    """The one child of a lab process: the program behind the leash that holds it."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        if children:
            return int(children[0])
    return pid


def cpu_s(pid: int) -> float:
    """User and system CPU seconds since its start, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
