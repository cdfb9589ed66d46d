"""What an ask makes of cards for what they are: family, model, health, ids. It holds until an inventory changes.

What is used on the cards is the affair of `fleet.scan`.
"""

import numpy as np

from hami.model.ask import CardAsk, CardRules
from hami.model.ids import CardId, Family
from hami.plan.exact.rules import kind_accepted
from hami.plan.fleet.columns import ABSENT, WRONG_ID, WRONG_TYPE, Bytes, Columns, Ints


class Need:
    """One family's ask over all rows: what depends only on the inventory, kept until that changes."""

    def __init__(self, columns: Columns, family: Family, rules: CardRules, mem_percent: int | None) -> None:
        fate = np.array([self._fate(rules, family, kind) for kind in columns.kinds], np.uint8)
        standing = columns.standing.copy()
        by_kind = fate[columns.kind]
        np.copyto(standing, by_kind, where=(standing == 0) | (by_kind == ABSENT))
        self.total = np.count_nonzero(standing != ABSENT, axis=0).astype(np.int32)
        """Cards of the family on each node."""
        if rules.use_ids or rules.nouse_ids:
            self._rule_ids(columns, rules, standing)
        self.standing = standing
        self.mem: Ints | None = None
        """MiB the ask takes on each card; None where it is the same on all."""
        if mem_percent is not None:
            self.mem = (columns.mem.astype(np.int64) * mem_percent // 100).astype(np.int32)

    @staticmethod
    def _fate(rules: CardRules, family: Family, kind: tuple[str, str, str]) -> int:
        own, model, mode = kind
        if own != family:
            return ABSENT
        return 0 if kind_accepted(rules, model, mode) else WRONG_TYPE

    @staticmethod
    def _rule_ids(columns: Columns, rules: CardRules, standing: Bytes) -> None:
        wrong = np.full(standing.shape, bool(rules.use_ids))
        for card in rules.use_ids:
            for at in columns.places.get(CardId(card), ()):
                wrong[at] = False
        for card in rules.nouse_ids:
            for at in columns.places.get(CardId(card), ()):
                wrong[at] = True
        standing[wrong & (standing == 0)] = WRONG_ID


class Needs:
    """The `Need`s of recent asks. A cluster sees few distinct rules, and inventories rarely change."""

    SIZE = 64

    def __init__(self) -> None:
        self._inventory = -1
        self._kept: dict[tuple[Family, CardRules, int | None], Need] = {}

    def of(self, columns: Columns, ask: CardAsk) -> Need:
        if columns.inventory != self._inventory:
            self._inventory = columns.inventory
            self._kept.clear()
        key = (ask.family, ask.rules, ask.mem_percent if ask.mem_mib is None else None)
        need = self._kept.get(key)
        if need is None:
            if len(self._kept) >= self.SIZE:
                self._kept.pop(next(iter(self._kept)))
            need = self._kept[key] = Need(columns, *key)
        return need
