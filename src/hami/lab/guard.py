"""A small process that outlives the harness and sweeps up after it: `python -m hami.lab.guard ID`.

It reads its standard input, the other end of which only the harness has. A byte
means that the lab stopped by itself; the end of the file without one means that
the harness was killed.
"""

import signal
import subprocess
import sys

from hami.lab import sweep

FAREWELL = b"."


class Guard:
    """The harness's handle on its guard."""

    def __init__(self, identity: str) -> None:
        # Its own session: what kills the harness's group must not kill it too.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "hami.lab.guard", identity],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def dismiss(self) -> None:
        """Everything is removed: it may go."""
        try:
            self._child.communicate(FAREWELL)
        except BrokenPipeError:
            self._child.wait()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not sys.stdin.buffer.read():
        sweep.sweep(sys.argv[1])


if __name__ == "__main__":
    main()
