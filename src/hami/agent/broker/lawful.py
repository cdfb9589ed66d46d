"""How much a slice's libraries may rightly have given: its limit, or more where that was lowered under them.

They count in the container's ledger, where a tenant can write. Who makes it say less than is held gets more from an
honest library, which then tells us so; a limit that was lowered looks the same but for what it was before.
"""

from collections.abc import Iterable

QUIET = 30
"""Looks with no more than the limit, after which it was given back: who connects again is unheard for up to 17 s."""

Key = tuple[str, str]
"""Grant and card."""


class Lawful:
    """Bytes. `slack`: what may pass a limit for a moment."""

    def __init__(self, slack: int) -> None:
        self._slack = slack
        self._most: dict[Key, tuple[int, int]] = {}
        """And in how many looks in a row no more than a lowered limit was told."""

    def look(self, key: Key, limit: int, given: int, *, settled: bool) -> None:
        """Once a second. Not `settled`: what was before our start we do not know, so all that is told may be right."""
        most, quiet = self._most.get(key, (limit, 0))
        quiet = quiet + 1 if given <= limit < most else 0
        if limit > most or quiet == QUIET:
            most = limit
        self._most[key] = most if settled else max(most, given), quiet

    def keep(self, keys: Iterable[Key]) -> None:
        """Forget all others."""
        self._most = {key: self._most[key] for key in keys if key in self._most}

    def passed(self, key: Key, given: int) -> bool:
        """Whether it is more than can be right."""
        return key in self._most and given > self._most[key][0] + self._slack
