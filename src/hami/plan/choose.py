"""The decision over many nodes: which can serve an ask, why the others cannot, and the plan on the best.

Columns answer for all nodes at once; the exact `fit` looks at the few they leave open
and makes the plan on the best one. Every name that was asked about ends in exactly one
of `feasible` and `refusals`.
"""

from collections.abc import Mapping, Sequence
from itertools import compress
from operator import itemgetter, not_
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from hami.model.ask import Ask, CardAsk, NodePolicy
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan import refuse
from hami.plan.columns import Bools, Columns, Cut, Longs, Needs, Scan, counts
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

    WORDS = 100_000
    SHAPES = 32

    def __init__(self) -> None:
        self.needs = Needs()
        self.forms: dict[tuple[int, ...], refuse.Form] = {}
        self._words: dict[tuple[object, ...], Refusal] = {}
        self._looks: dict[object, dict[int, tuple[NodeState, Outcome]]] = {}

    def words(self) -> dict[tuple[object, ...], Refusal]:
        """Refusals by what they say."""
        if len(self._words) > self.WORDS:
            self._words.clear()
            self.forms.clear()
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
        self._at = _positions(table.rows, names)
        """Position of each name; -1 is unregistered and finds the last outcome."""
        self._rows: Longs | None = None
        """The rows asked about; None looks at all of them and picks later, which is cheaper for many names."""
        rows = table.columns.rows
        if len(names) * 3 < rows:
            asked = np.fromiter(self._at, np.int64, len(self._at))
            known = asked >= 0
            self._rows = asked[known]
            rows = len(self._rows)
            self._at = tuple(np.where(known, np.cumsum(known) - 1, -1).tolist())
        self._cut = Cut(table.columns, self._rows)
        self._open: Bools = self._cut.of(table.columns.registered).copy()
        """Not refused so far."""
        self._outcomes: list[Outcome] = [None] * rows

    def run(self) -> None:
        """Refuse what cannot be."""
        self._refuse_unusable()
        scans = self._refuse_alone()
        self._refuse_together(scans)

    def best(self) -> Plan | None:
        """The plan on the best node left: by score, then by name."""
        score = self._cut.of(self.table.columns.node_score)
        if self.ask.node_policy is NodePolicy.SPREAD:
            score = -score
        score = np.where(self._open, score, -np.inf)
        while self._open.any() and (top := score.max()) > -np.inf:
            ties = np.flatnonzero(score == top)
            position = int(ties[self.table.rank[ties if self._rows is None else self._rows[ties]].argmin()])
            score[position] = -np.inf
            if self._rows is None and position not in self._at:
                score[~self._asked()] = -np.inf
                continue
            result = fit(self.ask, self._state(position))
            if isinstance(result, Plan):
                return result
            self._refuse(position, result)
        return None

    def decision(self, plan: Plan | None) -> Decision:
        found = _pick([*self._outcomes, refuse.UNKNOWN_NODE], self._at)
        feasible = list(compress(self.names, map(not_, found)))
        refusals: dict[str, Refusal] = dict(zip(compress(self.names, found), filter(None, found), strict=True))
        return Decision(plan, feasible, refusals)

    def _asked(self) -> Bools:
        """Which rows were asked about."""
        asked = np.zeros(len(self._open), np.bool_)
        at = np.fromiter(self._at, np.int64, len(self._at))
        asked[at[at >= 0]] = True
        return asked

    def _state(self, position: int) -> NodeState:
        return self.table.state(position if self._rows is None else int(self._rows[position]))

    def _refuse(self, position: int, refusal: Refusal) -> None:
        self._outcomes[position] = refusal
        self._open[position] = False

    def _refuse_unusable(self) -> None:
        bad = self._open & ~self._cut.of(self.table.columns.usable)
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
            scan = Scan(self._cut, self.table.recall.needs, want.ask, idle_only)
            scans[want.ask] = scan
            bad = np.flatnonzero(self._open & ~scan.fits)
            if bad.size:
                self._refuse_scanned(scan, want.ask, bad)
        return scans

    def _refuse_scanned(self, scan: Scan, ask: CardAsk, bad: Longs) -> None:
        self._open[bad] = False
        tallies, least = scan.tallies(bad)
        words, outcomes = self.table.recall.words(), self._outcomes
        head = (ask.family, ask.cards)
        total, together = scan.total[bad].tolist(), scan.together[bad].tolist()
        for position, missing, *said in zip(
            bad.tolist(), least.tolist(), total, together, tallies.tolist(), strict=True
        ):
            key = (missing, *said, head)
            refusal = words.get(key)
            if refusal is None:
                refusal = words[key] = _spell(self.table.recall, ask, missing, said)
            outcomes[position] = refusal

    def _refuse_together(self, scans: Mapping[CardAsk, Scan]) -> None:
        """Where containers meet on cards: settle what columns can, look at the rest."""
        looks: dict[int, tuple[NodeState, Outcome]] = {}
        groups = coupled(wants(self.ask))
        if groups:
            looks = self.table.recall.looks(self.ask)
        idle_only = chain(self.ask.card_policy).idle_only
        for group in groups:
            pairs = [(want, scans[want.ask]) for want in group]
            fits, may = settle(self._cut, pairs, idle_only)
            for position in np.flatnonzero(self._open & may).tolist():
                refusal = self._look(looks, position)
                if refusal is not None:
                    self._refuse(position, refusal)
            for position in np.flatnonzero(self._open & ~fits & ~may).tolist():
                self._refuse(position, refuse.NOT_TOGETHER)

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


def _positions(rows: Mapping[str, int], names: Sequence[str]) -> tuple[int, ...]:
    """The row of each name, -1 for one that has none. Turning names into rows is half the cost of a decision."""
    try:
        return _pick(rows, names)
    except KeyError:
        return tuple(rows.get(name, -1) for name in names)


def _pick(source: Any, keys: Sequence[Any]) -> tuple[Any, ...]:
    """`source[key]` for each key, in one call."""
    if len(keys) < 2:  # itemgetter gives no tuple for one, and takes none
        return tuple(source[key] for key in keys)
    found: tuple[Any, ...] = itemgetter(*keys)(source)
    return found


def _spell(recall: Recall, ask: CardAsk, missing: int, said: Sequence[int]) -> Refusal:
    total, together, tally = said
    if total == 0:
        return refuse.no_family(ask.family)
    if total < ask.cards:
        return refuse.too_few(ask.cards, total)
    key = (ask.cards, total, together, tally)
    form = recall.forms.get(key)
    if form is None:
        reasons = counts(tally)
        accepted = total - sum(reasons.values())
        form = recall.forms[key] = refuse.by_cards(
            reasons, total=total, asked=ask.cards, accepted=accepted, together=together
        )
    return form.say(None if missing < 0 else missing)
