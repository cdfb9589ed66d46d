"""Prometheus text of families with a line a card, rendered once a change and not once a scrape.

A `Sheet` keeps, per key (a node, a pod), the finished lines of each family; a
scrape joins them. 5000 nodes of 8 cards are 12 MB a page: rendering that in
one go would keep filter calls waiting for most of a second.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from msgspec import Struct


class Family(Struct, frozen=True):
    """A metric family. `constant` labels stand on every sample."""

    name: str
    help: str
    kind: Literal["gauge", "counter"] = "gauge"
    constant: tuple[tuple[str, str], ...] = ()

    @property
    def head(self) -> bytes:
        words = self.help.replace("\\", "\\\\").replace("\n", "\\n")
        return f"# HELP {self.name} {words}\n# TYPE {self.name} {self.kind}\n".encode()


Sample = tuple[Family, Mapping[str, str], float]


class Sheet:
    """Cached lines of some families, by key. One writer, in the loop; rendering changes nothing."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = tuple(families)
        self._lines: dict[Family, dict[str, bytes]] = {family: {} for family in self._families}
        self._generations: dict[str, int] = {}

    def fresh(self, key: str, generation: int) -> bool:
        """Whether the lines of `key` are of this generation already."""
        return self._generations.get(key) == generation

    def put(self, key: str, generation: int, samples: Iterable[Sample]) -> None:
        """Replace all lines of `key`."""
        lines: dict[Family, list[str]] = {}
        for family, labels, value in samples:
            lines.setdefault(family, []).append(sample_line(family, labels, value))
        for family in self._families:
            if family in lines:
                self._lines[family][key] = "".join(lines.pop(family)).encode()
            else:
                self._lines[family].pop(key, None)
        if lines:
            raise ValueError(f"{next(iter(lines)).name} is no family of this sheet")
        self._generations[key] = generation

    def drop(self, key: str) -> None:
        if self._generations.pop(key, None) is not None:
            for lines in self._lines.values():
                lines.pop(key, None)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Drop every key that is not among `keys`."""
        for key in self._generations.keys() - set(keys):
            self.drop(key)

    def render(self) -> bytes:
        """The families that have samples, each under its head."""
        return b"".join(self.lines())

    def lines(self) -> Iterator[bytes]:
        """The same in parts, a key each, each family as it is when its turn comes: for a page too large for one go."""
        for family, lines in self._lines.items():
            if lines:
                yield family.head
                yield from list(lines.values())


def sample_line(family: Family, labels: Mapping[str, str], value: float) -> str:
    """One line, labels in the order given after the constant ones."""
    pairs = ",".join(f'{name}="{escape(text)}"' for name, text in (*family.constant, *labels.items()))
    number = (
        repr(value) if isinstance(value, int) or value % 1 else str(int(value)) if abs(value) < 1e15 else repr(value)
    )
    return f"{family.name}{{{pairs}}} {number}\n" if pairs else f"{family.name} {number}\n"


def escape(text: str) -> str:
    """A label's value, as it stands between quotes."""
    if '"' in text or "\\" in text or "\n" in text:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return text
