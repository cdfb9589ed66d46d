"""What a process is that uses a card and has not registered, by what it has mapped: people want to know why.

Reading that waits for a lock of the process itself, which a hostile one can keep: in a thread of its own, never in the
loop, nor in the one that asks NVML.
"""

import re
from pathlib import Path

MOST_BYTES = 1 << 20
"""Of a list of mappings."""
_MUSL = re.compile(r"/ld-musl-|-linux-musl/|/libc\.musl-")
_LIBC = re.compile(r"/libc(-[\d.]+)?\.so")
_OURS = re.compile(r"/libvgpu\.so")


def described(pid: int, proc: Path) -> str:
    """Its name, and why it is not held, as far as can be seen: ``trainer, a musl program``. Empty: it is gone."""
    try:
        with (proc / str(pid) / "comm").open(errors="replace") as file:
            name = "".join(letter if letter.isprintable() else "?" for letter in file.read(64).strip())  # its own word
    except OSError:
        return ""
    try:
        with (proc / str(pid) / "maps").open(errors="replace") as file:
            return f"{name}, {kind(file.read(MOST_BYTES))}"
    except OSError:  # no right to look: an agent that is not privileged
        return name


def kind(maps: str) -> str:
    """Of a program with those mappings."""
    if _MUSL.search(maps):
        return "a musl program: nothing is preloaded into those"
    if _OURS.search(maps):
        return "which has the library and found a way past it"
    if not _LIBC.search(maps):
        return "a statically linked program"
    return "which runs without the library"
