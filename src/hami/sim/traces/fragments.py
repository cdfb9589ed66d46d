"""FGD's measure: how much free GPU of a machine the pods one expects cannot use.

After Weng et al., USENIX ATC 2023, in our own words: typical pods are the shapes that make up
95 % of a list, weighted by how often they occur. For one of them a machine's fragment is all its free GPU
if it cannot host the pod (no GPU asked, too little CPU, too few cards with room, wrong model), else what lies on
cards too full for it; the machine's fragment is the weighted mean. `gain` is how much a placement lowers it.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hami.sim.traces.cluster import FULL, Cluster
from hami.sim.traces.trace import Job

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

COVERED = 0.95


class Fragments:
    """Of a cluster, for the pods of a list."""

    def __init__(self, cluster: Cluster, jobs: Sequence[Job]) -> None:
        self._cluster = cluster
        types = typical(jobs)
        self.weight: Floats = np.array([weight for _, weight in types])
        self._cpu = np.array([job.cpu_milli for job, _ in types], np.int64)
        self._count = np.array([job.cards for job, _ in types], np.int64)
        none = np.full(len(cluster.sizes), FULL + 1)
        share = np.array([cluster.shares(job) if job.cards else none for job, _ in types], np.int64)
        self._accepts = np.array([[accepts(job, model) for model in cluster.models] or [False] for job, _ in types])
        levels = np.arange(FULL + 1)
        enough = levels[:, None] >= share.T[:, None]
        self._usable = np.where(enough, levels[:, None], 0).reshape(-1, len(types))
        self._enough = enough.reshape(-1, len(types)).astype(np.int64)
        """[size of card and free thousandths][type]: what a card gives the type, and whether it has room for one."""

    def of(self, rows: Ints) -> Floats:
        """Fragments of rows as they are, in thousandths of a card."""
        return self._fragment(rows, self._cluster.cpu[rows], self._cluster.room[rows])

    def total(self) -> float:
        """The cluster's fragment in cards."""
        return float(self.of(np.arange(len(self._cluster.names))).sum()) / FULL

    def gain(self, rows: Ints, job: Job, share: Ints, able: Bools) -> tuple[Floats, Ints]:
        """Fragment before less fragment after placing the job; for a share, on the best card that is able."""
        before = self.of(rows)
        cpu = self._cluster.cpu[rows] - job.cpu_milli
        room = self._cluster.room[rows]
        cards = np.zeros(len(rows), np.int64)
        if job.cards != 1 or not len(rows) or share.min() >= FULL:
            return before - self._fragment(rows, cpu, room_after(room, able, job.cards, share)), cards
        best = np.full(len(rows), -np.inf)
        places = np.arange(room.shape[1])
        for place in places:
            open_ = np.flatnonzero(able[:, place])
            after = room[open_] - np.where(places == place, share[open_, None], 0)
            gain = before[open_] - self._fragment(rows[open_], cpu[open_], after)
            better = gain > best[open_] + 1e-9
            best[open_[better]] = gain[better]
            cards[open_[better]] = place
        return best, cards

    def _fragment(self, rows: Ints, cpu: Ints, room: Ints) -> Floats:
        cells = room + (self._cluster.size[rows] * (FULL + 1))[:, None]
        usable = self._usable[cells].sum(axis=1)
        enough = self._enough[cells].sum(axis=1)
        models = self._cluster.model[rows]
        hosts = (enough >= np.maximum(self._count, 1)) & (cpu[:, None] >= self._cpu) & self._accepts.T[models]
        left = room.sum(axis=1)
        found: Floats = left * self.weight.sum() - np.where(hosts, usable, 0) @ self.weight
        return found


def typical(jobs: Sequence[Job]) -> list[tuple[Job, float]]:
    """One job of each of the most frequent shapes, with its weight; weights sum to 1."""
    counted = Counter(_kind(job) for job in jobs)
    sample = {_kind(job): job for job in jobs}
    found, covered = [], 0
    for shape, count in counted.most_common():
        if covered >= COVERED * len(jobs):
            break
        covered += count
        found.append((sample[shape], count))
    return [(job, count / covered) for job, count in found]


def _kind(job: Job) -> tuple[object, ...]:
    return job.cpu_milli, job.card_mem, job.card_percent, job.card_core, job.cards, job.models


def accepts(job: Job, model: str) -> bool:
    """Whether the job may run on cards of this model, as the engine tests it."""
    return not job.models or any(word.casefold() in model.casefold() for word in job.models)


def room_after(room: Ints, able: Bools, cards: int, share: Ints) -> Ints:
    """Rooms of rows after the first `cards` cards that are able have taken the row's share."""
    taken = able & (able.cumsum(axis=1) <= cards)
    found: Ints = np.where(taken, room - share[:, None], room)
    return found
