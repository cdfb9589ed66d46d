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
from hami.model.plan import Plan
from hami.model.refusal import Reason, Refusal
from hami.plan import refuse
from hami.plan.columns import Bools, Columns, Longs, Needs, Scan, counts
from hami.plan.fit import fit, wants
from hami.plan.policies import chain
from hami.plan.snapshot import NodeState
from hami.plan.together import coupled, settle

Outcome = Refusal | None
"""Of one node; None is feasible."""


class Decision(Struct, frozen=True):
    """What is decided for one pod. Nothing is reserved yet."""

    plan: Plan | None
    """On the best node; None where nothing is feasible, or nothing was asked."""
    feasible: list[str]
    """In the order asked."""
    refusals: dict[str, Refusal]
    """Nodes refused for the same reason share one object."""

    def reasons(self) -> dict[str, str]:
        """Why each refused node is out, as text."""
        texts: dict[int, str] = {}
        for refusal in self.refusals.values():
            if id(refusal) not in texts:
                texts[id(refusal)] = refusal.text
        return {name: texts[id(refusal)] for name, refusal in self.refusals.items()}


class Table(Protocol):
    """The nodes to choose from: states are the truth, columns follow them row for row."""

    columns: Columns
    recall: "Recall"

    @property
    def rows(self) -> Mapping[str, int]:
        """Row of each registered node."""

    @property
    def rank(self) -> Longs:
        """Place of each row in the order of node names."""

    def state(self, row: int) -> NodeState:
        """The node in a row that is in use."""


class Recall:
    """What is worth keeping from one decision to the next. None of it changes an answer."""

    WORDS = 50_000
    SHAPES = 32

    def __init__(self) -> None:
        self.needs = Needs()
        self._words: dict[tuple[object, ...], Refusal] = {}
        self._looks: dict[object, dict[int, tuple[NodeState, Outcome]]] = {}

    def words(self) -> dict[tuple[object, ...], Refusal]:
        """Refusals by what they say."""
        if len(self._words) > self.WORDS:
            self._words.clear()
        return self._words

    def looks(self, ask: Ask) -> dict[int, tuple[NodeState, Outcome]]:
        """Exact looks for asks of this shape: row -> the state looked at, and what came out."""
        shape = (tuple((one.kind, one.cards) for one in ask.containers), ask.card_policy, ask.weights)
        found = self._looks.get(shape)
        if found is None:
            if len(self._looks) >= self.SHAPES:
                self._looks.pop(next(iter(self._looks)))
            found = self._looks[shape] = {}
        return found


def choose(ask: Ask, table: Table, names: Sequence[str] | None = None) -> Decision:
    """Decide for `ask` among `names`, or all registered nodes."""
    if names is None:
        names = list(table.rows)
    if ask.empty:
        return Decision(None, list(names), {})
    screen = Screen(ask, table, names)
    screen.run()
    plan = screen.best()
    return screen.decision(plan)


class Screen:
    """One pass over the nodes asked about. Positions are rows, or places in a short list of rows."""

    def __init__(self, ask: Ask, table: Table, names: Sequence[str]) -> None:
        self.ask, self.table, self.names = ask, table, names
        rows = table.rows
        self._at: list[int] = [rows.get(name, -1) for name in names]
        """Position of each name; -1 is unregistered and finds the last outcome."""
        self._rows: Longs | None = None
        self._open: Bools
        """Asked about and not refused so far."""
        asked = np.array(self._at, np.int64)
        if len(names) * 3 < len(rows):
            self._rows = asked[asked >= 0]
            places = iter(range(len(self._rows)))
            self._at = [-1 if at < 0 else next(places) for at in self._at]
            self._open = np.ones(len(self._rows), np.bool_)
        else:
            self._open = np.zeros(table.columns.rows, np.bool_)
            self._open[asked[asked >= 0]] = True
        self._cut: slice | Longs = slice(0, table.columns.rows) if self._rows is None else self._rows
        self._outcomes: list[Outcome] = [None] * len(self._open)

    def run(self) -> None:
        """Refuse what cannot be."""
        self._refuse_unusable()
        scans = self._refuse_alone()
        self._refuse_together(scans)

    def best(self) -> Plan | None:
        """The plan on the best node left."""
        score = self.table.columns.node_score[self._cut]
        if self.ask.node_policy is NodePolicy.SPREAD:
            score = -score
        while (left := np.flatnonzero(self._open)).size:
            scores = score[left]
            ties = left[scores == scores.max()]
            ranks = self.table.rank[ties if self._rows is None else self._rows[ties]]
            position = int(ties[ranks.argmin()])
            result = fit(self.ask, self._state(position))
            if isinstance(result, Plan):
                return result
            self._refuse(position, result)
        return None

    def decision(self, plan: Plan | None) -> Decision:
        outcomes: list[Outcome] = [*self._outcomes, refuse.UNKNOWN_NODE]
        found = [outcomes[at] for at in self._at]
        names = self.names
        feasible = [name for name, one in zip(names, found, strict=True) if one is None]
        refusals = {name: one for name, one in zip(names, found, strict=True) if one is not None}
        return Decision(plan, feasible, refusals)

    def _state(self, position: int) -> NodeState:
        return self.table.state(position if self._rows is None else int(self._rows[position]))

    def _refuse(self, position: int, refusal: Refusal) -> None:
        self._outcomes[position] = refusal
        self._open[position] = False

    def _refuse_unusable(self) -> None:
        bad = self._open & ~self.table.columns.usable[self._cut]
        words = self.table.recall.words()
        for position in np.flatnonzero(bad).tolist():
            problem = self._state(position).problem or ""
            refusal = words.get((problem,))
            if refusal is None:
                refusal = words[(problem,)] = refuse.unusable(problem)
            self._refuse(position, refusal)

    def _refuse_alone(self) -> dict[CardAsk, Scan]:
        """Test every want by itself; the first that finds too few cards gives the reason."""
        scans: dict[CardAsk, Scan] = {}
        idle_only = chain(self.ask.card_policy).idle_only
        for want in wants(self.ask):
            if want.ask in scans:
                continue
            scan = Scan(self.table.columns, self.table.recall.needs, want.ask, idle_only, self._rows)
            scans[want.ask] = scan
            bad = np.flatnonzero(self._open & ~scan.fits)
            if bad.size:
                self._refuse_scanned(scan, want.ask, bad)
        return scans

    def _refuse_scanned(self, scan: Scan, ask: CardAsk, bad: Longs) -> None:
        self._open[bad] = False
        tallies, least = scan.tallies(bad)
        words = self.table.recall.words()
        outcomes = self._outcomes
        family, asked = ask.family, ask.cards
        for position, total, together, tally, missing in zip(
            bad.tolist(),
            scan.total[bad].tolist(),
            scan.together[bad].tolist(),
            tallies.tolist(),
            least.tolist(),
            strict=True,
        ):
            key = (family, asked, total, together, tally, missing)
            refusal = words.get(key)
            if refusal is None:
                refusal = words[key] = _spell(ask, total, together, tally, missing)
            outcomes[position] = refusal

    def _refuse_together(self, scans: Mapping[CardAsk, Scan]) -> None:
        """Where containers meet on cards: settle what columns can, look at the rest."""
        doubtful = np.zeros_like(self._open)
        for group in coupled(wants(self.ask)):
            fits = settle(
                self.table.columns,
                [(want, scans[want.ask]) for want in group],
                chain(self.ask.card_policy).idle_only,
                self._cut,
            )
            doubtful |= self._open & ~fits
        looks = self.table.recall.looks(self.ask) if doubtful.any() else {}
        for position in np.flatnonzero(doubtful).tolist():
            refusal = self._look(looks, position)
            if refusal is not None:
                self._refuse(position, refusal)

    def _look(self, looks: dict[int, tuple[NodeState, Outcome]], position: int) -> Outcome:
        """An exact look, or the memory of one at this very state."""
        state = self._state(position)
        row = position if self._rows is None else int(self._rows[position])
        kept = looks.get(row)
        if kept is not None and kept[0] is state:
            return kept[1]
        result = fit(self.ask, state)
        outcome = replace(result, cards=()) if isinstance(result, Refusal) else None
        looks[row] = (state, outcome)
        return outcome


def _spell(ask: CardAsk, total: int, together: int, tally: int, missing: int) -> Refusal:
    if total == 0:
        return refuse.no_family(ask.family)
    if total < ask.cards:
        return refuse.too_few(ask.cards, total)
    reasons: Mapping[Reason, int] = counts(tally)
    accepted = total - sum(reasons.values())
    return refuse.by_cards(
        reasons,
        total=total,
        asked=ask.cards,
        accepted=accepted,
        together=together,
        missing_mib=None if missing < 0 else missing,
    )
