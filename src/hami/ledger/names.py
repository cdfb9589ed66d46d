"""Node names to rows, thousands at once: kube-scheduler sends every name anew with every pod.

A name is a few words of eight bytes; numpy finds them all in one table, and compares them with those it found there.
A dictionary would hash each name by itself, and meet another line of memory for each. What the table cannot tell
is left to the dictionary, so it is never wrong of a name that a node may have: those hold no zero byte.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import itemgetter

import numpy as np

from hami.ledger.sent import Sent
from hami.ledger.spelled import Spelled, Words
from hami.plan.fleet.columns import Longs

FEW = 256
"""Up to this many names the dictionary is as fast."""
ROOMY = 8
"""Places of the table a name: the more, the fewer names meet on one and are left to the dictionary."""
LONGEST = 256
"""Bytes of a name that the table is made for; Kubernetes allows 253."""
_UNKNOWN = -1
_FACTORS: Words = np.random.default_rng(1).integers(0, 1 << 63, (8, LONGEST // 8), np.uint64) | np.uint64(1)
"""[choice][word]: odd numbers. Of eight choices one suits names that are numbered much better than chance would."""


class Names:
    """The rows of registered nodes by name, as they are when this is made; -1 stands for every other name."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._rows = rows
        self._table: Table | None = None
        if len(rows) > FEW and max(map(len, rows)) < LONGEST and "".join(rows).isascii():
            self._table = Table(rows)

    def rows(self, names: Sequence[str]) -> Longs:
        """The row of each of `names`."""
        if self._table is not None and len(names) > FEW:
            try:
                return self._found(self._table, names)
            except ValueError:
                pass  # not ASCII, or a zero byte: no name of ours
        return self._looked_up(names)

    def _found(self, table: "Table", names: Sequence[str]) -> Longs:
        rows, unsure = table.find(names)
        if len(unsure):
            rows[unsure] = self._looked_up([names[place] for place in unsure.tolist()])
        return rows

    def _looked_up(self, names: Sequence[str]) -> Longs:
        if len(names) > 1:  # itemgetter gives no tuple for one, and takes none
            try:
                return np.fromiter(itemgetter(*names)(self._rows), np.int64, len(names))
            except KeyError:
                pass
        return np.fromiter(map(self._rows.get, names, repeat(_UNKNOWN)), np.int64, len(names))


class Table:
    """Names of ASCII by the highest bits of the sum of their words, each times an odd number."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._width = max(map(len, rows)) // 8 + 1  # a byte more than any name of ours: a longer one differs there
        bits = (ROOMY * len(rows) - 1).bit_length()
        self._shift = np.uint64(64 - bits)
        words = Spelled(list(rows)).words(self._width)
        self._alike = list(map(_alike, words))
        """By word, what it is in all names, as those of a cluster often begin: then it tells nothing."""
        self._places = np.full(1 << bits, _UNKNOWN, np.int16 if max(rows.values()) < 2**15 else np.int32)
        self._factors = max(_FACTORS, key=lambda one: self._apart(words, one))
        numbers = np.fromiter(rows.values(), np.int64, len(rows))
        self._own = np.zeros((self._width, int(numbers.max()) + 1), np.uint64)
        """[word][row]: the name of each row."""
        self._own[:, numbers] = words
        self._places[self._hash(words, self._factors)] = numbers

    def find(self, names: Sequence[str]) -> tuple[Longs, Longs]:
        """The row of each name, and the places of those of which this is not sure."""
        words = (names if isinstance(names, Sent) else Spelled(names)).words(self._width)
        rows = self._places.take(self._hash(words, self._factors)).astype(np.int64)
        same = np.ones(len(rows), np.bool_)
        for own, word, alike in zip(self._own, words, self._alike, strict=True):
            same &= word == (own.take(rows, mode="wrap") if alike is None else alike)
        return rows, np.flatnonzero(~same & (rows != _UNKNOWN))

    def _apart(self, words: Words, factors: Words) -> int:
        """How many places are taken if these factors are."""
        taken = np.zeros(len(self._places), np.bool_)
        taken[self._hash(words, factors)] = True
        return int(np.count_nonzero(taken))

    def _hash(self, words: Words, factors: Words) -> Longs:
        told = zip(words, factors, self._alike, strict=False)
        total, *further = [word * factor for word, factor, alike in told if alike is None]
        for one in further:
            total += one
        total >>= self._shift
        places: Longs = total.view(np.int64)
        return places


def _alike(word: Words) -> np.uint64 | None:
    """What all names have there; None where they differ."""
    least: np.uint64 = word.min()
    return least if least == word.max() else None
