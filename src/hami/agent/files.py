"""Files that are replaced as a whole, so that a reader, after any crash, finds the old state or the new one."""

import contextlib
import os
from pathlib import Path


def replace_file(path: Path, text: bytes, mode: int, *, durable: bool) -> None:
    """Replace a file so that every reader sees all of the old or all of the new.

    `durable`: also after a power cut. That waits for the disk twice, milliseconds each while
    images are unpacked; without it only the kernel must live on. Raises OSError, which names the file.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as fault:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(fault.errno, fault.strerror, str(path)) from fault  # a full disk's own error says not which disk
    if durable:
        sync_folder(path.parent)


def says(path: Path, text: bytes) -> bool:
    """Whether the file is there, and is that."""
    try:
        return path.read_bytes() == text
    except OSError:
        return False


def write_durably(path: Path, text: bytes, mode: int) -> None:
    """`replace_file` that also survives a power cut."""
    replace_file(path, text, mode, durable=True)


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
