"""Names of nodes as kube-scheduler sends them: a JSON list that stays one, not thousands of strings.

A filter names every node anew with every pod, and answers with all of them. Where all names are of one length, as
those of a cluster mostly are, each is a record of so many bytes: rows are found from the bytes, those that go back are
copied as they came, and those that are refused with what is said of them. Strings are made for whoever reads them as
a sequence. The engine knows them as `plan.fleet.parted.Records`. Knows no numbers of rows.
"""

import sys
from collections.abc import Iterator
from typing import overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from hami.ledger.spelled import Words
from hami.plan.fleet.columns import Longs
from hami.plan.fleet.parted import Records

WORD = 8
"""Bytes."""
_QUOTE, _COMMA, _BACKSLASH, _SPACE = b'",\\ '
_MARKS = len('"",')
"""Bytes of a record beside its name."""
_TO_THE_FRONT = np.right_shift if sys.byteorder == "little" else np.left_shift


class Sent(Records):
    """Names in plain ASCII, all of one length of at least a word."""

    def __init__(self, records: NDArray[np.void]) -> None:
        """Each record is `"name",`."""
        self._records = records
        self._length = records.itemsize - _MARKS

    @classmethod
    def of(cls, listed: bytes) -> "Sent | None":
        """The names in a valid JSON list; None where it is not one of names alike, or not written the shortest way."""
        step = listed.find(b'"', 2) + 1  # from the first quote to the next name's
        if step < WORD + _MARKS or (len(listed) - 1) % step or not listed.isascii():
            return None
        records = np.frombuffer(listed[1:-1] + b",", np.uint8).reshape(-1, step)
        quoted = (records[:, 0] == _QUOTE).all() and (records[:, -2] == _QUOTE).all()
        plain = records.min() >= _SPACE and not (records == _BACKSLASH).any()
        quotes = np.count_nonzero(records == _QUOTE)
        if not (quoted and plain and quotes == 2 * len(records) and (records[:, -1] == _COMMA).all()):
            return None
        return cls(records.view(np.dtype((np.void, step))).reshape(-1))

    def words(self, width: int) -> Words:
        """[word][name]: the first `width` words of each, zero behind its end."""
        found = np.zeros((width, len(self._records)), np.uint64)
        for number in range(min(width, -(-self._length // WORD))):
            start = min(WORD * number, self._length - WORD)
            there = np.ndarray((len(self._records),), np.uint64, self._records, 1 + start, self._records.strides)
            _TO_THE_FRONT(there, np.uint64(8 * (WORD * number - start)), out=found[number])
        return found

    def at(self, places: Longs) -> "Sent":
        """Those at `places`, in that order."""
        return Sent(self._records.take(places))

    def json(self) -> bytes:
        """The list as it is sent."""
        return b"[" + self._records.tobytes()[:-1] + b"]"

    def each(self, said: bytes) -> bytearray:
        """Members of a JSON object that say the same of each name: `"name":said,` and so on. `said` is JSON."""
        count, quoted, rest = len(self._records), self._records.itemsize - 1, b":" + said + b","
        members = bytearray(bytes(quoted) + rest) * count
        kind = np.dtype((np.void, quoted))
        names = np.ndarray((count,), kind, self._records, 0, self._records.strides)
        np.ndarray((count,), kind, members, 0, (quoted + len(rest),))[...] = names
        return members

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return list(Sent(self._records[place]))
        record: bytes = self._records[place].tobytes()
        return record[1:-2].decode("ascii")

    def __iter__(self) -> Iterator[str]:
        return iter(msgspec.json.decode(self.json(), type=list[str]))

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or len(name) != self._length or not name.isascii() or '"' in name:
            return False
        return f'"{name}",'.encode() in self._records.tobytes()
