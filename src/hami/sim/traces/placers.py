"""Who decides in a replay: the engine with one of its node policies, or a published baseline.

Both end alike: the engine makes the plan, the ledger charges it. One signature, `place`. The engine is asked
as kube-scheduler asks it: with the names of the nodes whose hosts have room. A pod without cards reaches the engine
only where a cluster is set up so; `pack` may be asked about it too, else, and among nodes that are equal to `pack`, the
one with most CPU and memory free gets it, as kube-scheduler's NodeResourcesFit prefers.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hami.model.ask import NodePolicy
from hami.model.ids import NodeName
from hami.model.plan import Plan
from hami.model.refusal import Refusal
from hami.plan.choose import Decision
from hami.sim.traces.baselines import BASELINES, Answer, View
from hami.sim.traces.cluster import FULL, Cluster
from hami.sim.traces.fragments import Fragments, accepts
from hami.sim.traces.trace import Job

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Refused(Struct, frozen=True):
    """No node takes the job now; the reason that most nodes share."""

    reason: str


class Placer(Protocol):
    def place(self, job: Job, now: float) -> int | Refused:
        """Place the job: its row, or why not."""


HOSTS = "host CPU or memory"
NO_CARDS = "too few cards with room"


class EnginePlacer:
    """A node policy of the engine. With `ties`, kube-scheduler draws among equal hosts for a pod without cards."""

    def __init__(
        self, cluster: Cluster, *, host_jobs: str = "least-allocated", ties: np.random.Generator | None = None
    ) -> None:
        self._cluster = cluster
        self._host_jobs = host_jobs
        self._ties = ties
        self._capacity = (cluster.cpu.copy(), cluster.mem.copy())
        self._names = np.array(cluster.names, object)

    def place(self, job: Job, now: float) -> int | Refused:
        cluster, hosts = self._cluster, self._cluster.hosts(job)
        rows = np.flatnonzero(hosts)
        if not len(rows):
            return Refused(HOSTS)
        if not job.cards:
            row = self._host_row(job, rows)
            cluster.place(job, row, None, now)
            return row
        names: list[str] = self._names[rows[self._cluster.cards[rows] > 0]].tolist()
        decision = cluster.ledger.decide(cluster.ask(job), names)
        if decision.plan is None:
            return Refused(reason_of(decision))
        row = cluster.row(decision.plan.node)
        cluster.place(job, row, decision.plan, now)
        return row

    def _host_row(self, job: Job, rows: Ints) -> int:
        if self._host_jobs == "pack":
            names = self._cluster.ledger.shelters(self._cluster.ask(job), self._names[rows].tolist())
            if names and self._ties is None:
                return self._cluster.row(min(names))
            rows = np.array([self._cluster.row(name) for name in names], np.int64) if names else rows
        cpu = (self._cluster.cpu[rows] - job.cpu_milli) / self._capacity[0][rows]
        mem = (self._cluster.mem[rows] - job.mem_mib) / self._capacity[1][rows]
        score = cpu + mem
        best = rows[score == score.max()]
        return int(best[0] if self._ties is None else self._ties.choice(best))


class BaselinePlacer:
    """A published policy over the cluster's columns; what was scored is kept until the row changes.
    With `ties`, one of equal nodes is drawn each time."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        fragments: Fragments,
        seed: int,
        *,
        ties: np.random.Generator | None = None,
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._score = BASELINES[name]
        self._fragments = fragments
        self._rng = np.random.default_rng(seed)
        self._ties = ties
        self._order = self._rng.permutation(len(cluster.names))
        """Place of each row in the order in which ties are broken."""
        self._kept: dict[object, tuple[Ints, Floats, Ints]] = {}

    def place(self, job: Job, now: float) -> int | Refused:
        cluster = self._cluster
        hosts = cluster.hosts(job)
        if not hosts.any():
            return Refused(HOSTS)
        rows = self._cards_fit(job, np.flatnonzero(hosts))
        if not len(rows):
            return Refused(NO_CARDS)
        scores, cards = self._scored(job, rows)
        row = int(self._pick(rows, scores))
        plan = self._plan(job, row, int(cards[rows == row][0])) if job.cards else None
        cluster.place(job, row, plan, now)
        return row

    def _cards_fit(self, job: Job, rows: Ints) -> Ints:
        """Those of `rows` with enough cards of an accepted model."""
        cluster = self._cluster
        if not job.cards:
            return rows
        models = np.array([*(accepts(job, model) for model in cluster.models), False])
        rows = rows[models[cluster.model[rows]]]
        found: Ints = rows[cluster.able(job, rows).sum(axis=1) >= job.cards]
        return found

    def _scored(self, job: Job, rows: Ints) -> Answer:
        if self._name == "best-fit":  # its score depends on the other rows: nothing can be kept
            return self._score(self._view(job, rows))
        size = len(self._cluster.names)
        seen, scores, cards = self._kept.setdefault(
            job.shape, (np.zeros(size, np.int64), np.zeros(size), np.zeros(size, np.int64))
        )
        stale = rows[seen[rows] != self._cluster.version[rows]]
        if len(stale):
            scores[stale], cards[stale] = self._score(self._view(job, stale))
            seen[stale] = self._cluster.version[stale]
        return scores[rows], cards[rows]

    def _view(self, job: Job, rows: Ints) -> View:
        cluster = self._cluster
        share = cluster.shares(job)[cluster.size[rows]] if job.cards else np.zeros(len(rows), np.int64)
        return View(cluster, job, rows, share, cluster.able(job, rows), self._fragments)

    def _pick(self, rows: Ints, scores: Floats) -> int:
        if self._name == "random":
            return int(self._rng.choice(rows))
        best = rows[scores == scores.max()]
        return int(best[self._order[best].argmin()] if self._ties is None else self._ties.choice(best))

    def _plan(self, job: Job, row: int, card: int) -> Plan:
        """The engine's plan on the chosen cards: it must agree that they have room."""
        cluster = self._cluster
        able = np.flatnonzero(cluster.able(job, np.array([row]))[0])
        if job.cards == 1 and cluster.shares(job)[cluster.size[row]] < FULL:
            places: Sequence[int] = [int(self._rng.choice(able)) if self._name == "random" else card]
        else:
            places = able[: job.cards].tolist()
        ask = cluster.ask(job, cluster.card_ids(row, places))
        plan = cluster.ledger.fit(ask, NodeName(cluster.names[row]))
        if isinstance(plan, Refusal):
            raise AssertionError(f"{job.name} on {cluster.names[row]}: {plan.text}")
        return plan


def reason_of(decision: Decision) -> str:
    """What most nodes refused for, in the engine's words."""
    refusals = decision.refusals
    examples = dict(zip(refusals.numbers, refusals.names, strict=True))
    counted = Counter[str]()
    for number, nodes in Counter(refusals.numbers).items():
        counted[refusals[examples[number]].reason.value] += nodes
    return max(counted, key=lambda word: (counted[word], word)) if counted else HOSTS


ENGINE = tuple(policy.value for policy in NodePolicy)
POLICIES = (*ENGINE, *BASELINES)
"""Every policy a replay knows."""
