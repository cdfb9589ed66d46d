"""How much a slice's libraries may rightly have given: its limit, or more where that was lowered under them.

They count in the container's ledger, where a tenant can write. Who makes it say less than is held gets more from an
honest library, which then tells us so; a limit that was lowered looks the same but for what it was before.
"""

from collections.abc import Iterable

Key = tuple[str, str]
"""Grant and card."""


class Lawful:
    """Bytes. `slack`: what may pass a limit for a moment."""

    def __init__(self, slack: int) -> None:
        self._slack = slack
        self._most: dict[Key, int] = {}

    def look(self, key: Key, limit: int, given: int, *, settled: bool) -> None:
        """Once a second. Not `settled`: what was before our start we do not know, so all that is told may be right."""
        if given <= limit:
            self._most[key] = limit  # no more is owed to a limit of before
        else:
            known = max(limit, self._most.get(key, limit))
            self._most[key] = known if settled else max(known, given)

    def keep(self, keys: Iterable[Key]) -> None:
        """Forget all others."""
        self._most = {key: self._most[key] for key in keys if key in self._most}

    def passed(self, key: Key, given: int) -> bool:
        return given > self._most.get(key, given) + self._slack
