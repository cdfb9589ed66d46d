"""How much memory this process may still take, as its container's limit has it: the kernel ends who takes more.

Read from the control group that a container sees as its own, in the second version of these files or in the first.
"""

from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
_NO_LIMIT = 1 << 60
"""Bytes from which on a limit of the first version means none."""


def spare(groups: Path = GROUPS) -> int | None:
    """Bytes until the limit, 0 where it is passed; None where there is no limit, or nobody says so. Files that the
    kernel keeps in memory count as used, though it would drop them: rather too little than too much."""
    for limit, used in _FILES:
        try:
            most = int((groups / limit).read_text())
            now = int((groups / used).read_text())
        except (OSError, ValueError):  # no such version here, or the word "max"
            continue
        if most < _NO_LIMIT:
            return max(0, most - now)
    return None
