"""Memory that was freed stays with the process: a decision makes arrays of 40 to 400 KB and drops them again.

glibc gives such memory back to the system at once, and the next decision has it mapped and zeroed anew, page by page:
in a virtual machine a page costs two to three microseconds, so a decision lost up to a third of its time to that.
"""

import ctypes

KEPT = 8 << 20
"""Bytes of free memory at the end of the heap that are kept."""
LARGE = 4 << 20
"""Bytes from which on memory is asked of the system by itself, and given back."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """For this process, from now on. False where the C library has no such choice."""
    try:
        choose = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(choose(_TRIM_THRESHOLD, KEPT)) and bool(choose(_MMAP_THRESHOLD, LARGE))
