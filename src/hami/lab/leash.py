"""Starts a program that dies with its parent. Run as a script: `leash.py PARENT ARGV...`.

The kernel's parent-death signal is set, then the program takes this process's
place. It imports nothing of the project, so that it starts in milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent died before the start")
    os.execvp(argv[0], argv)  # noqa: S606 - no shell on purpose


if __name__ == "__main__":
    main()
