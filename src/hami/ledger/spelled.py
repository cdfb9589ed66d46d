"""Names as words of eight bytes, thousands at once: joined into one string, and taken from there.

Joining costs a third of what taking each name by itself does; where all are of one length, as the names of a cluster
mostly are, each word is then one strided look at the whole.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_BEHIND = b"\0" * 8
"""So that the last word of the last name can be taken whole."""
_LEFT: Words = np.frombuffer(b"".join(b"\xff" * left + b"\0" * (8 - left) for left in range(9)), np.uint64)
"""What to keep of a word of which so many bytes belong to the name."""


class Spelled:
    """ASCII names one after the other, a zero byte behind each. `ValueError` where one is not ASCII, or holds one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._joined = "\0".join(names).encode("ascii") + _BEHIND
        self._count = len(names)
        self._bytes = np.frombuffer(self._joined, np.uint8)[: len(self._joined) - len(_BEHIND) + 1]
        self._step = self._one_step(len(names[0]) + 1)

    def _one_step(self, step: int) -> int | None:
        """Bytes from each name to the next, if that is the same for all; as far as the first one says."""
        if len(self._bytes) != step * self._count or self._bytes[step - 1 :: step].any():
            return None
        zeros = len(self._bytes) - np.count_nonzero(self._bytes.view(np.bool_))
        return step if zeros == self._count else None

    def words(self, width: int) -> Words:
        """[word][name]: the first `width` words of each, zero behind its end."""
        return self._alike(self._step, width) if self._step is not None else self._unlike(width)

    def _alike(self, step: int, width: int) -> Words:
        found = np.empty((width, self._count), np.uint64)
        for number, word in enumerate(found):
            left = min(max(step - 1 - 8 * number, 0), 8)
            there = np.ndarray((self._count,), np.uint64, self._joined, 8 * number * (left > 0), (step,))
            np.bitwise_and(there, _LEFT[left], out=word)
        return found

    def _unlike(self, width: int) -> Words:
        ends = np.flatnonzero(self._bytes == 0)
        if len(ends) != self._count:
            raise ValueError("a name with a zero byte")
        starts = np.empty_like(ends)
        starts[0], starts[1:] = 0, ends[:-1] + 1
        anywhere = np.ndarray((len(self._joined) - 7,), np.uint64, self._joined, 0, (1,))
        found = np.empty((width, self._count), np.uint64)
        for number, word in enumerate(found):
            left = np.clip(ends - starts - 8 * number, 0, 8)
            np.bitwise_and(anywhere[starts + 8 * number * (left > 0)], _LEFT.take(left), out=word)
        return found
