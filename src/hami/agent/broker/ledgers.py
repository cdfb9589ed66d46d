"""A container's ledger is a file of the host that its tenant can write to: it must not fill the host's disk.

The library maps its beginning and never makes it longer. What lies beyond is the tenant's own, and cut off; nobody
counts it to the container's storage.
"""

import os

MOST_BYTES = 16 << 20
"""More than ten times what the library maps."""


def cut(path: str) -> int:
    """Bytes that were cut off a ledger. What cannot be looked at is left alone."""
    try:
        size = os.stat(path, follow_symlinks=False).st_size  # noqa: PTH116 - each second, for each container
        if size <= MOST_BYTES:
            return 0
        os.truncate(path, MOST_BYTES)
    except OSError:
        return 0
    return size - MOST_BYTES
