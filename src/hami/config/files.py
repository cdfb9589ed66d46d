"""Files that a person names: read whole, and never more of them than can be meant; written whole or not at all. Knows
no format.

A slip of a name can be a device without an end or a file of ten gigabytes, and a disk can fail while it is read:
each is told in a line, as wrong input is.
"""

import errno
from contextlib import suppress
from pathlib import Path

from hami.model.errors import HamiError, Malformed

SETTINGS = 16 << 20
"""Bytes of a manifest or a configuration: an object of Kubernetes has 1.5 MB at most."""
CLUSTERS = 1 << 30
"""Bytes of a trace, a record or a snapshot: a snapshot of 10,000 nodes and 100,000 pods has some 100 MB."""
_PIECE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What is the fault of a disk and not of who named the file."""


def read(path: Path, most: int = SETTINGS) -> bytes:
    """What stands in the file. Raises `Malformed` where it cannot be read, or has more than `most` bytes."""
    found = bytearray()
    try:
        with path.open("rb") as file:
            if path.stat().st_size > most:  # of what is no plain file it is 0
                raise _too_large(path, most)
            while piece := file.read(_PIECE):
                found += piece
                if len(found) > most:
                    raise _too_large(path, most)
    except OSError as fault:
        raise Malformed(str(path), fault.strerror or str(fault), "a file that can be read") from None
    return bytes(found)


def text(path: Path, most: int = SETTINGS) -> str:
    """The same as text, its lines ended by newlines. A spreadsheet's mark at the beginning is none of it."""
    return decoded(read(path, most), path)


def decoded(body: bytes, path: Path) -> str:
    """What `text` gives, of what was read already. Raises `Malformed`."""
    try:
        return body.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as fault:
        raise Malformed(str(path), fault.object[fault.start : fault.start + 8], "text in UTF-8") from None


def write(path: Path, body: bytes) -> None:
    """Put `body` in place of what stands there; where that fails the old file stays. Raises as `unwritable` says."""
    try:
        if path.exists() and not path.is_file():  # a terminal, a pipe
            path.write_bytes(body)
        else:
            _replace(path.resolve(), body)  # a link stays one
    except OSError as fault:
        raise unwritable(path, fault) from None


def _replace(place: Path, body: bytes) -> None:
    """Who may read the old file, and nobody else, may read the new one."""
    fresh = place.with_name(f".{place.name}.new")
    try:
        with fresh.open("wb") as file:
            if place.exists():
                fresh.chmod(place.stat().st_mode & 0o777)
            file.write(body)
        fresh.replace(place)
    finally:
        with suppress(OSError):  # what went wrong before is what is told
            fresh.unlink(missing_ok=True)


def unwritable(path: Path, fault: OSError) -> HamiError:
    """What to say of a file that could not be written: wrong input, but where the disk is full or broken."""
    if fault.errno in _FULL:
        return HamiError(f"{path} cannot be written: {fault.strerror}")
    return Malformed(str(path), fault.strerror or str(fault), "a file that can be written")


def _too_large(path: Path, most: int) -> Malformed:
    return Malformed(str(path), f"more than {most >> 20} MiB", "a smaller file; is this the one you mean?")
