"""Refusals by the thousand: what nodes are refused for, numbered, and a mapping that spells them out when asked.

On a large cluster thousands of nodes fail for few reasons, each lacking its own amount of memory.
A decision keeps two numbers a node; a `Refusal` is made for who looks at one.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hami.model.ask import CardAsk
from hami.model.refusal import Refusal
from hami.plan.exact import refuse
from hami.plan.exact.refuse import Form
from hami.plan.fleet.columns import Ints, Longs
from hami.plan.fleet.memo import Memo
from hami.plan.fleet.parted import at
from hami.plan.fleet.tally import counts

T = TypeVar("T")

FEASIBLE, UNKNOWN = 0, 1
"""The numbers of "nothing to refuse" and of a node that nobody registered."""
NOTHING = -1
"""MiB missing where no card was refused for its memory."""
MISSING_BITS = 34
"""Of a number and the MiB missing in one word; what lacks is below 2**32 (`columns.TOP`, twice)."""
SAID = 50_000
"""Refusals kept spelled out."""

_CARD_BITS = 16
"""For the number of a node's cards."""
_NO_FORM = Form((), 0, "", "")


class Words:
    """What is said of nodes, numbered. Numbers are never used again for something else."""

    def __init__(self) -> None:
        self.forms: list[Form] = [_NO_FORM, refuse.form(refuse.UNKNOWN_NODE)]
        self._numbers: dict[Form, int] = {form: number for number, form in enumerate(self.forms)}
        self._memo = Memo()
        self._numbered: dict[tuple[int, int], int] = {}
        """By tally, and what it was counted for and on."""
        self._counted: dict[tuple[str, int], int] = {}
        """A number for each family and number of cards that was asked."""
        self._said: dict[tuple[int, int], Refusal] = {}

    def __len__(self) -> int:
        return len(self.forms)

    @property
    def kept(self) -> int:
        """Entries of the largest table: grows with what is asked and never shrinks."""
        return max(len(self.forms), len(self._numbered), len(self._counted))

    def number(self, form: Form) -> int:
        """The number of what `form` says."""
        found = self._numbers.get(form)
        if found is None:
            found = self._numbers[form] = len(self.forms)
            self.forms.append(form)
        return found

    def general(self, refusal: Refusal) -> int:
        """The number of an exact look's refusal, card by card left out."""
        return self.number(refuse.form(refusal))

    def tallied(self, ask: CardAsk, total: Ints, together: NDArray[np.uint8], tallies: Longs) -> Ints:
        """Numbers for nodes that `ask` was counted on: cards of the family, those that fit together, reasons."""
        said = self._counted.setdefault((ask.family, ask.cards), len(self._counted))
        kinds: Longs = total.astype(np.int64)
        kinds += said << _CARD_BITS
        kinds <<= 8
        kinds |= together
        return self._memo.numbers(tallies, kinds, lambda tally, kind: self._tallied(ask, tally, kind))

    def _tallied(self, ask: CardAsk, tally: int, kind: int) -> int:
        known = self._numbered.get((tally, kind))
        if known is None:
            total, together = kind >> 8 & (1 << _CARD_BITS) - 1, kind & 255
            known = self._numbered[tally, kind] = self.number(_spell(ask, total, together, tally))
        return known

    def refusal(self, number: int, missing: int) -> Refusal:
        """The refusal in full; the same object for the same words."""
        key = (number, missing)
        found = self._said.get(key)
        if found is None:
            if len(self._said) >= SAID:
                self._said.clear()
            found = self._said[key] = self.forms[number].say(None if missing == NOTHING else missing)
        return found


class Refusals(Mapping[str, Refusal]):
    """Why each refused node is out, by name; two numbers a node stand for it."""

    def __init__(self, names: Sequence[str], numbers: Ints, missing: Longs, words: Words) -> None:
        self.names = names
        self._numbers = numbers
        self._missing = missing
        self._words = words
        self._places: dict[str, int] = {}

    @classmethod
    def of(cls, refusals: Mapping[str, Refusal]) -> "Refusals":
        """Refusals made one by one."""
        words = Words()
        numbers = np.fromiter((words.number(refuse.form(one)) for one in refusals.values()), np.int32, len(refusals))
        return cls(list(refusals), numbers, np.full(len(numbers), NOTHING, np.int64), words)

    @classmethod
    def alike(cls, names: Sequence[str], refusal: Refusal) -> "Refusals":
        """The same of every node."""
        words = Words()
        number = np.full(len(names), words.general(refusal), np.int32)
        return cls(names, number, np.full(len(names), NOTHING, np.int64), words)

    def beside(self, others: Mapping[str, Refusal]) -> "Refusals":
        """These, and those of other nodes, made one by one."""
        numbers = np.fromiter(map(self._words.general, others.values()), np.int32, len(others))
        return Refusals(
            [*self.names, *others],
            np.append(self._numbers, numbers),
            np.append(self._missing, np.full(len(others), NOTHING, np.int64)),
            self._words,
        )

    @property
    def numbers(self) -> list[int]:
        """What is said of each of `names`, as places in `forms`."""
        found: list[int] = self._numbers.tolist()
        return found

    def tally(self) -> dict[int, int]:
        """How many nodes each number is said of."""
        nodes = np.bincount(self._numbers)
        return {number: int(nodes[number]) for number in np.flatnonzero(nodes).tolist()}

    def by_number(self, said: Mapping[int, T]) -> list[T]:
        """What `said` has for each node's number, in the order of `names`."""
        table = np.empty(len(self._words), object)
        for number, one in said.items():
            table[number] = one
        found: list[T] = table[self._numbers].tolist()
        return found

    def alike_by_number(self) -> list[tuple[int, Sequence[str]]]:
        """Each number that is said, in order, and of whom."""
        return [(int(number), names) for number, names in self._alike(self._numbers)]

    def alike_by_pair(self, most: int) -> list[tuple[int, int, Sequence[str]]] | None:
        """Each number and MiB missing (`NOTHING` where none is), in order, and of whom; None where there are more than
        `most`."""
        if len(distinct(self._keys[: 10 * most])) > most:  # mostly this much tells
            return None
        found = self._alike(self._keys)
        return None if len(found) > most else [(*_pair(int(key)), names) for key, names in found]

    def _alike(self, keys: Ints | Longs) -> list[tuple[np.integer[Any], Sequence[str]]]:
        """The names by their key, in its order."""
        if not len(keys):
            return []
        order = np.argsort(keys, kind="stable")
        ordered = keys.take(order)
        firsts = np.append(0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)
        names = self.names if len(keys) > FEW else list(self.names)
        same = (at(names, places) for places in np.split(order, firsts[1:]))
        return list(zip(ordered.take(firsts), same, strict=True))

    @cached_property
    def _keys(self) -> Longs:
        keys: Longs = (self._numbers.astype(np.int64) << MISSING_BITS) + self._missing
        return keys

    @property
    def forms(self) -> Sequence[Form]:
        """What each number says."""
        return self._words.forms

    def __getitem__(self, name: str) -> Refusal:
        if len(self._places) != len(self.names):
            self._places = {one: place for place, one in enumerate(self.names)}
        place = self._places[name]
        return self._words.refusal(int(self._numbers[place]), int(self._missing[place]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def distinct(values: Longs) -> list[int]:
    """The different values, sorted."""
    if len(values) <= SHORT:
        return sorted(set(values.tolist()))
    ordered = np.sort(values)  # not `np.unique`: its first call imports a module in the middle of a decision
    found: list[int] = ordered[np.append(True, ordered[1:] != ordered[:-1])].tolist()
    return found


SHORT = 256
"""Up to this many values a set is faster than numpy's way."""
FEW = 100
"""Up to this many names strings are made of all at once; of more, those that are kept otherwise stay so."""


def _key(number: int, missing: int) -> int:
    return (number << MISSING_BITS) + missing


def _pair(key: int) -> tuple[int, int]:
    number = key + 1 >> MISSING_BITS  # `NOTHING` is one below a number's first key
    return number, key - (number << MISSING_BITS)


def _spell(ask: CardAsk, total: int, together: int, tally: int) -> Form:
    if total == 0:
        return refuse.form(refuse.no_family(ask.family))
    if total < ask.cards:
        return refuse.form(refuse.too_few(ask.cards, total))
    reasons = counts(tally)
    accepted = total - sum(reasons.values())
    return refuse.by_cards(reasons, total=total, asked=ask.cards, accepted=accepted, together=together)
