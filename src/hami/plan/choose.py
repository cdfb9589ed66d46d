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

from hami.model.ask import Ask, NodePolicy
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan.exact import score
from hami.plan.exact.fit import fit
from hami.plan.fleet.columns import Floats, Longs
from hami.plan.fleet.parted import parted
from hami.plan.fleet.refusals import FEASIBLE, Refusals, Words
from hami.plan.fleet.screen import Screen, Screened
from hami.plan.fleet.verdicts import Verdicts
from hami.plan.pack import Pack
from hami.plan.policies import chain


class Decision(Struct, frozen=True):
    """What is decided for one pod. Nothing is reserved yet."""

    plan: Plan | None
    """On the best node; None where nothing is feasible, or nothing was asked."""
    feasible: Sequence[str]
    """In the order asked."""
    refusals: Refusals
    """By name, for each of the others."""

    def reasons(self) -> dict[str, str]:
        """Why each refused node is out, as text."""
        return {name: refusal.text for name, refusal in self.refusals.items()}


class Table(Screened, Protocol):
    """The nodes to choose from."""

    pack: Pack

    @property
    def rows(self) -> Mapping[str, int]:
        """Row of each registered node."""

    def rows_of(self, names: Sequence[str]) -> Longs:
        """The row of each name, -1 for one that has none."""

    @property
    def rank(self) -> Longs:
        """Place of each row in the order of node names."""


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
    rows = rows.take(np.flatnonzero(verdicts.number.take(rows) == FEASIBLE))  # faster than picking by truth
    scores = _scores(ask, table, rows)  # also of no rows: `pack` learns of the ask
    while (top := scores.max(initial=-np.inf)) > -np.inf:
        ties = np.flatnonzero(scores == top)
        best = rows.take(ties)
        row = int(best[0] if len(best) == 1 else best[table.rank.take(best).argmin()])
        result = fit_as(ask, table, row)
        if isinstance(result, Plan):
            return result
        verdicts.refuse(row, table.recall.words.general(result))
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
    numbers = verdicts.number.take(rows)
    out = np.flatnonzero(numbers)  # FEASIBLE is 0
    feasible, refused = parted(names, out)
    missing = verdicts.missing.take(rows.take(out))
    return Decision(plan, feasible, Refusals(refused, numbers.take(out), missing, words))
