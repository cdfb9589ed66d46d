"""Chunks of bytes to whole lines, in linear time even for a line of tens of megabytes."""

from hami.model.errors import Unavailable

LONGEST = 64 << 20
"""Bytes. An object in etcd is at most a few MiB; 64 MiB of one line is a broken peer, not an object."""


class Lines:
    """Feed chunks, get the lines that they complete. Sans I/O."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Whole lines without their ends, empty ones left out. Raises `Unavailable` on an endless line."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            # Joined once a line, not once a chunk: a 30 MB line arrives in hundreds of chunks.
            self._pieces.append(lines[0])
            lines[0] = b"".join(self._pieces)
            self._pieces, self._held = [], 0
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            if self._held > self._longest:
                raise Unavailable(f"watch: a line above {self._longest >> 20} MiB; the stream is not to be trusted")
        return [line for line in lines if line]
