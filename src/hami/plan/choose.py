"""The decision over many nodes: which can serve an ask, why the others cannot, and the plan on the best.

Columns answer for all nodes at once; the exact `fit` looks at the few they leave open
and makes the plan on the best one. Every name that was asked about ends in exactly one
of `feasible` and `refusals`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk, NodePolicy
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan import refuse, score
from hami.plan.columns import Bools, Columns, Floats, Longs
from hami.plan.cut import Cut
from hami.plan.fit import fit, wants
from hami.plan.pack import Pack
from hami.plan.policies import chain
from hami.plan.refusals import FEASIBLE, NOTHING, Refusals, Words
from hami.plan.scan import Scan
from hami.plan.snapshot import NodeState
from hami.plan.together import coupled, settle
from hami.plan.verdicts import Recall, Verdicts


class Decision(Struct, frozen=True):
    """What is decided for one pod. Nothing is reserved yet."""

    plan: Plan | None
    """On the best node; None where nothing is feasible, or nothing was asked."""
    feasible: list[str]
    """In the order asked."""
    refusals: Refusals
    """By name, for each of the others."""

    def reasons(self) -> dict[str, str]:
        """Why each refused node is out, as text."""
        return {name: refusal.text for name, refusal in self.refusals.items()}


class Table(Protocol):
    """The nodes to choose from: states are the truth, columns follow them row for row."""

    columns: Columns
    recall: Recall
    pack: Pack

    @property
    def rows(self) -> Mapping[str, int]:
        """Row of each registered node."""

    def rows_of(self, names: Sequence[str]) -> Longs:
        """The row of each name, -1 for one that has none."""

    @property
    def rank(self) -> Longs:
        """Place of each row in the order of node names."""

    def state(self, row: int) -> NodeState:
        """The node in a row that is in use."""


def choose(ask: Ask, table: Table, names: Sequence[str] | None = None) -> Decision:
    """Decide for `ask` among `names`, or all registered nodes."""
    if names is None:
        names = list(table.rows)
    if ask.empty:
        return Decision(None, list(names), Refusals.of({}))
    rows = table.rows_of(names)
    verdicts = table.recall.verdicts(ask, table.columns)
    stale = verdicts.stale(table.columns, rows)
    if stale.size:
        Screen(ask, table, stale).into(verdicts)
    plan = _best(ask, table, rows, verdicts)
    return _decision(names, rows, verdicts, table.recall.words, plan)


def _best(ask: Ask, table: Table, rows: Longs, verdicts: Verdicts) -> Plan | None:
    """The plan on the best node left: by score, then by name."""
    rows = rows[verdicts.number.take(rows) == FEASIBLE]
    scores = _scores(ask, table, rows)  # also of no rows: `pack` learns of the ask
    while (top := scores.max(initial=-np.inf)) > -np.inf:
        ties = np.flatnonzero(scores == top)
        row = int(rows[ties[table.rank[rows[ties]].argmin()]])
        result = fit_as(ask, table, row)
        if isinstance(result, Plan):
            return result
        verdicts.refuse(row, _general(table.recall.words, result))
        scores[rows == row] = -np.inf
    return None


def choose_hosts(cpu_milli: int, table: Table, names: Sequence[str]) -> list[NodeName]:
    """Those of `names` where a pod without cards costs the cards least. Empty where nobody knows what pods ask."""
    rows = table.rows_of(names)
    costs = table.pack.host_gains(cpu_milli, table.columns, rows)
    if costs is None or not len(rows):
        return []
    known = np.where(rows < 0, 0.0, costs)  # a node without cards costs none
    best = np.flatnonzero(known == known.max())
    return [NodeName(names[place]) for place in best.tolist()]


def fit_as(ask: Ask, table: Table, row: int) -> Plan | Refusal:
    """The exact look at one row, with the cards that the node policy wants, where it wants any."""
    state = table.state(row)
    if ask.node_policy is NodePolicy.PACK and not ask.empty:
        few = table.pack.narrowed(ask, table.columns, row, state)
        plan = fit(ask, few) if few is not None else None
        if isinstance(plan, Plan):
            return replace(plan, score=score.node(state.cards))
    return fit(ask, state)


def _scores(ask: Ask, table: Table, rows: Longs) -> Floats:
    """What the policies think of each row, to be changed by who asked; the highest is the best."""
    if ask.node_policy is NodePolicy.PACK:
        return table.pack.gains(ask, table.columns, rows)
    scores: Floats = table.columns.node_score.take(rows)
    if ask.node_policy is NodePolicy.SPREAD:
        scores = -scores
    if chain(ask.card_policy).sets is not None:  # whoever wants well-linked cards leaves the larger nodes whole
        scores = scores - SMALLER * table.columns.cards.take(rows)
    return scores


SMALLER = 1000.0
"""A card more weighs more than any difference of how full nodes are (0 to 30)."""


def _decision(names: Sequence[str], rows: Longs, verdicts: Verdicts, words: Words, plan: Plan | None) -> Decision:
    numbers = verdicts.number[rows]
    out = np.flatnonzero(numbers)  # FEASIBLE is 0
    feasible, refused = _parted(names, out)
    return Decision(plan, feasible, Refusals(refused, numbers[out], verdicts.missing[rows[out]], words))


def _parted(names: Sequence[str], out: Longs) -> tuple[list[str], list[str]]:
    """`names` without those at the places `out`, and those."""
    if len(out) * FEW < len(names):
        return _picked(names, out)
    marks = np.ones(len(names), np.bool_)
    marks[out] = False
    if (len(names) - len(out)) * FEW < len(names):
        refused, kept = _picked(names, np.flatnonzero(marks))
        return kept, refused
    every = np.array(names, object)
    return every[marks].tolist(), every[out].tolist()


def _picked(names: Sequence[str], out: Longs) -> tuple[list[str], list[str]]:
    """The same for few places: what lies between them is copied in one go."""
    kept: list[str] = []
    done = 0
    places: list[int] = out.tolist()
    for place in places:
        kept += names[done:place]
        done = place + 1
    kept += names[done:]
    return kept, [names[place] for place in places]


FEW = 16
"""Where less than one name in so many goes, or stays, picking those is the fastest way."""


def _general(words: Words, refusal: Refusal) -> int:
    """The number of an exact look's refusal, card by card left out."""
    return words.number(refuse.form(refusal))


class Screen:
    """One look at some rows for one ask. Positions are places in the rows looked at."""

    def __init__(self, ask: Ask, table: Table, rows: Longs) -> None:
        self.ask, self.table = ask, table
        everything = len(rows) * 3 >= table.columns.rows  # then a look at all is cheaper than picking some
        self._rows = np.arange(table.columns.rows) if everything else rows
        self._cut = Cut(table.columns, None if everything else rows)
        self._open: Bools = self._cut.of(table.columns.registered).copy()
        """Not refused so far."""
        self._number = np.zeros(len(self._rows), np.int32)
        self._missing = np.full(len(self._rows), NOTHING, np.int64)

    def into(self, verdicts: Verdicts) -> None:
        """Refuse what cannot be, and note it."""
        self._refuse_unusable()
        self._look_closely()
        scans = self._refuse_alone()
        self._refuse_together(scans)
        verdicts.put(self.table.columns, self._rows, self._number, self._missing)

    def _refuse(self, position: int, refusal: Refusal) -> None:
        self._number[position] = _general(self.table.recall.words, refusal)
        self._open[position] = False

    def _refuse_unusable(self) -> None:
        bad = self._open & ~self._cut.of(self.table.columns.usable)
        for position in np.flatnonzero(bad).tolist():
            self._refuse(position, refuse.unusable(self._state(position).problem or ""))

    def _look_closely(self) -> None:
        """What columns cannot tell: places of MIG instances, quotas that depend on the cards."""
        close = self._open
        if not self.ask.budgets:
            close = close & self._cut.of(self.table.columns.mig)
        for position in np.flatnonzero(close).tolist():
            result = fit(self.ask, self._state(position))
            if isinstance(result, Refusal):
                self._refuse(position, result)
        self._open &= ~close

    def _refuse_alone(self) -> dict[CardAsk, Scan]:
        """Test every want by itself; the first that finds too few cards gives the reason."""
        scans: dict[CardAsk, Scan] = {}
        idle_only = chain(self.ask.card_policy).idle_only
        for want in wants(self.ask):
            if want.ask in scans:
                continue
            scan = Scan(self._cut, self.table.recall.sieves, want.ask, idle_only)
            scans[want.ask] = scan
            bad = np.flatnonzero(self._open & ~scan.fits)
            if bad.size:
                self._refuse_scanned(scan, want.ask, bad)
        return scans

    def _refuse_scanned(self, scan: Scan, ask: CardAsk, bad: Longs) -> None:
        self._open[bad] = False
        tallies, least = scan.tallies(bad)
        words = self.table.recall.words
        self._number[bad] = words.tallied(ask, scan.total[bad], scan.together[bad], tallies)
        self._missing[bad] = least

    def _refuse_together(self, scans: Mapping[CardAsk, Scan]) -> None:
        """Where containers meet on cards: settle what columns can, look at the rest."""
        idle_only = chain(self.ask.card_policy).idle_only
        for group in coupled(wants(self.ask)):
            pairs = [(want, scans[want.ask]) for want in group]
            fits, may = settle(self._cut, pairs, idle_only)
            for position in np.flatnonzero(self._open & may).tolist():
                result = fit(self.ask, self._state(position))
                if isinstance(result, Refusal):
                    self._refuse(position, result)
            apart = self._open & ~fits & ~may
            self._number[apart] = _general(self.table.recall.words, refuse.NOT_TOGETHER)
            self._open &= ~apart

    def _state(self, position: int) -> NodeState:
        return self.table.state(int(self._rows[position]))
