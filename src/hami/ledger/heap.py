"""Memory for decisions, had once and kept: one makes arrays of 40 to 400 KB and drops them again, by the dozen.

glibc gives what is freed at the end of its heap back to the system, and the next decision has it mapped and zeroed
anew, page by page. In a virtual machine a page costs some 5 microseconds, so that a decision on a shape of ask that was
not seen before spent a third of its time on pages, and more where it weighs many nodes.
"""

import ctypes

A_NODE = 12 << 10
"""Bytes that decisions come to keep a node, most by the policy `pack`: what was found of it for hundreds of shapes."""
LARGE = 16 << 20
"""Bytes from which on memory is asked of the system by itself, and given back."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def make_ready(nodes: int, spare: int | None = None) -> bool:
    """Have memory for decisions among so many nodes, and keep what is freed from now on: best done once everything
    else is there. `spare` are the bytes this process may still take (None: as many as it likes); half of them are left
    alone, since a slow decision is better than a process that the kernel ends. False where the C library has no such
    choice."""
    try:
        choose = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    ready = A_NODE * nodes if spare is None else min(A_NODE * nodes, max(spare, 0) // 2)
    if not (choose(_MMAP_THRESHOLD, LARGE) and choose(_TRIM_THRESHOLD, 2 * max(ready, LARGE))):
        return False
    part = LARGE // 2
    written = [b"\1" * min(part, ready - start) for start in range(0, ready, part)]  # else no page of it is there
    written.clear()
    return True
