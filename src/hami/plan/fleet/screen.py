"""One ask against many nodes at once: which refuse it, and why. What columns cannot tell is looked at exactly, node by
node; `plan.choose` then has the best of the others looked at.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from hami.model.ask import Ask, CardAsk
from hami.model.refusal import Refusal
from hami.plan.exact import refuse
from hami.plan.exact.fit import fit
from hami.plan.exact.wants import wants
from hami.plan.fleet.columns import MAX_CARDS, Bools, Columns, Longs
from hami.plan.fleet.cut import Cut
from hami.plan.fleet.refusals import NOTHING
from hami.plan.fleet.scan import Scan
from hami.plan.fleet.together import coupled, settle
from hami.plan.fleet.verdicts import Recall, Verdicts
from hami.plan.policies import chain
from hami.plan.snapshot import NodeState


class Screened(Protocol):
    """Nodes in rows: states are the truth, columns follow them."""

    columns: Columns
    recall: Recall

    def state(self, row: int) -> NodeState:
        """The node in a row that is in use."""


class Screen:
    """One look at some rows for one ask. Positions are places in the rows looked at."""

    def __init__(self, ask: Ask, table: Screened, rows: Longs) -> None:
        columns = table.columns
        everything = len(rows) * 3 >= columns.rows  # then a look at all is cheaper than picking some
        self.ask, self.table = ask, table
        self._wants = wants(ask)
        self._idle_only = chain(ask.card_policy).idle_only
        self._rows: Longs | slice = slice(columns.rows) if everything else rows
        self._cut = Cut(columns, None if everything else rows)
        self._open: Bools = self._cut.of(columns.registered).copy()
        """Not refused so far."""
        self._number = np.zeros(len(self._open), np.int32)
        self._missing = np.full(len(self._open), NOTHING, np.int64)

    def into(self, verdicts: Verdicts) -> None:
        """Refuse what cannot be, and note it."""
        if self.table.columns.odd:
            self._refuse_unusable()
        if self.table.columns.odd or self.ask.budgets:
            self._look_closely()
        scans = self._refuse_alone()
        if len(self._wants) > 1:
            self._refuse_together(scans)
        verdicts.put(self.table.columns, self._rows, self._number, self._missing)

    def _refuse(self, position: int, refusal: Refusal) -> None:
        self._number[position] = self.table.recall.words.general(refusal)
        self._open[position] = False

    def _refuse_unusable(self) -> None:
        bad = self._open & ~self._cut.of(self.table.columns.usable)
        for position in np.flatnonzero(bad).tolist():
            self._refuse(position, refuse.unusable(self._state(position).problem or ""))

    def _look_closely(self) -> None:
        """What columns cannot tell: places of MIG instances, more cards than can be counted, quotas that depend on the
        cards."""
        close, columns = self._open, self.table.columns
        if not self.ask.budgets:
            close = close & (self._cut.of(columns.mig) | (self._cut.of(columns.cards) > MAX_CARDS))
        for position in np.flatnonzero(close).tolist():
            result = fit(self.ask, self._state(position))
            if isinstance(result, Refusal):
                self._refuse(position, result)
        self._open &= ~close

    def _refuse_alone(self) -> dict[CardAsk, Scan]:
        """Test every want by itself; the first that finds too few cards gives the reason."""
        scans: dict[CardAsk, Scan] = {}
        for want in self._wants:
            if want.ask in scans:
                continue
            scan = Scan(self._cut, self.table.recall.sieves, want.ask, self._idle_only)
            scans[want.ask] = scan
            bad = np.flatnonzero(self._open & ~scan.fits)
            if bad.size:
                self._refuse_scanned(scan, want.ask, bad)
        return scans

    def _refuse_scanned(self, scan: Scan, ask: CardAsk, bad: Longs) -> None:
        self._open[bad] = False
        tallies, least = scan.tallies(bad)
        words = self.table.recall.words
        self._number[bad] = words.tallied(ask, scan.total.take(bad), scan.together.take(bad), tallies)
        self._missing[bad] = least

    def _refuse_together(self, scans: Mapping[CardAsk, Scan]) -> None:
        """Where containers meet on cards: settle what columns can, look at the rest."""
        for group in coupled(self._wants):
            pairs = [(want, scans[want.ask]) for want in group]
            fits, may = settle(self._cut, pairs, self._idle_only)
            for position in np.flatnonzero(self._open & may).tolist():
                result = fit(self.ask, self._state(position))
                if isinstance(result, Refusal):
                    self._refuse(position, result)
            apart = self._open & ~fits & ~may
            self._number[apart] = self.table.recall.words.general(refuse.NOT_TOGETHER)
            self._open &= ~apart

    def _state(self, position: int) -> NodeState:
        return self.table.state(position if isinstance(self._rows, slice) else int(self._rows[position]))
