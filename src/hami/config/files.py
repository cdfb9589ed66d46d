"""Files that a person names: read whole, and never more of them than can be meant. Knows no format.

A slip of a name can be a device without an end or a file of ten gigabytes, and a disk can fail while it is read:
each is told in a line, as wrong input is.
"""

from pathlib import Path

from hami.model.errors import Malformed

SETTINGS = 16 << 20
"""Bytes of a manifest or a configuration: an object of Kubernetes has 1.5 MB at most."""
CLUSTERS = 1 << 30
"""Bytes of a trace, a record or a snapshot: a snapshot of 10,000 nodes and 100,000 pods has some 100 MB."""
_PIECE = 1 << 20


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
    body = read(path, most)
    try:
        return body.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as fault:
        raise Malformed(str(path), body[fault.start : fault.start + 8], "text in UTF-8") from None


def _too_large(path: Path, most: int) -> Malformed:
    return Malformed(str(path), f"more than {most >> 20} MiB", "a smaller file; is this the one you mean?")
