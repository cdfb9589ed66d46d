"""A container's ledger is a file of the host that its tenant can write to: it must not fill the host's disk.

The library maps its beginning and never makes it longer. What lies beyond is the tenant's own, and cut off, whether
it is written or only set aside beyond the file's end (fallocate); nobody counts it to the container's storage.
"""

import os

MOST_BYTES = 16 << 20
"""More than ten times what the library maps: what is cut is never under a program's hands, which would end it."""
BLOCK = 512
"""Bytes of `st_blocks`, on every file system."""


def cut(path: str) -> int:
    """Bytes that were cut off a ledger. What cannot be looked at is left alone."""
    try:
        found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - each second, for each container
        taken = found.st_blocks * BLOCK
        if found.st_size <= MOST_BYTES and taken <= 2 * MOST_BYTES:  # a file system counts blocks of its own, too
            return 0
        for size in (MOST_BYTES + 1, MOST_BYTES):  # only what makes a file shorter surely frees what lies beyond
            os.truncate(path, size)
    except OSError:
        return 0
    return max(found.st_size, taken) - MOST_BYTES
