"""Placement policies others have published, to compare ours with: the score of each row, and the card.

Random, best fit, dot product, GPU packing, GPU clustering and FGD (Weng et al., "Beware of
Fragmentation", USENIX ATC 2023), as their definitions say. They see a cluster's columns;
what they choose is planned and charged by the engine. One function a policy: rows in, scores and cards out,
higher is better; a tie goes to the lowest name in an order the seed fixes, as in the published experiment.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hami.sim.cluster import FULL, SHARING, WITHOUT, Cluster
from hami.sim.fragments import Fragments
from hami.sim.trace import Job

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_CPU, MOST_GPU = 128_000, 8 * FULL
"""The largest machine of openb; best fit measures with it."""


class View(Struct, frozen=True):
    """What a policy sees: the cluster, the job, the rows it may choose from and what is free there."""

    cluster: Cluster
    job: Job
    rows: Ints
    share: int
    fragments: Fragments

    @property
    def room(self) -> Ints:
        return self.cluster.room[self.rows]

    @property
    def asked(self) -> int:
        return self.job.cards * self.share

    @property
    def shares(self) -> bool:
        """Whether the job takes a part of one card."""
        return self.job.cards == 1 and self.share < FULL


Answer = tuple[Floats, Ints]
"""Of each row seen: score, and the card for a job that shares one."""


def least_free(view: View) -> Ints:
    """The fullest card with room, the first of equal ones."""
    room = view.room
    found: Ints = np.where(room >= view.share, room, 10 * FULL).argmin(axis=1)
    return found


def random(view: View) -> Answer:
    """No preference: the replay draws among equals."""
    return np.zeros(len(view.rows)), least_free(view)


def best_fit(view: View) -> Answer:
    """The row with least left of CPU and GPU together."""
    cpu = (view.cluster.cpu[view.rows] - view.job.cpu_milli) / MOST_CPU
    gpu = (view.room.sum(axis=1) - view.asked) / MOST_GPU
    return _to_hundred(100 * (1 - 0.5 * cpu - 0.5 * gpu)), least_free(view)


def dot_product(view: View) -> Answer:
    """The row whose free resources are least in the direction of what is asked."""
    cpu = view.cluster.cpu[view.rows] / MOST_CPU * (view.job.cpu_milli / MOST_CPU)
    gpu = view.room.sum(axis=1) / MOST_GPU * (view.asked / MOST_GPU)
    return np.floor(100 * (1 - (cpu + gpu) / 2)), least_free(view)


def gpu_packing(view: View) -> Answer:
    """Cards in use first, then idle cards of used machines, then idle machines."""
    room, cards = view.room, view.cluster.cards[view.rows]
    idle = (room == FULL).sum(axis=1)
    if not view.job.cards:
        return np.zeros(len(view.rows)), least_free(view)
    used = (room < FULL) & (np.arange(room.shape[1]) < cards[:, None])
    partly = (used & (room >= view.share)).sum(axis=1) >= view.job.cards
    free = np.where(used & (room >= view.share), room, 10 * FULL).min(axis=1)
    score = np.where(idle < cards, np.maximum(50 - idle, 33), np.maximum(33 - idle, 0))
    return np.where(partly, np.maximum(100 - free / 10 // 10, 50), score).astype(np.float64), least_free(view)


def gpu_clustering(view: View) -> Answer:
    """Machines that run the same kind of job first."""
    mine = view.cluster.class_of(view.job) or SHARING  # a job without cards goes where cards are shared
    here = view.cluster.classes[view.rows] > 0
    here[:, WITHOUT] = False
    any_here, others = here.any(axis=1), here.sum(axis=1)
    base = np.select([here[:, mine] & (others == 1), here[:, mine] & (others > 1), ~any_here], [75.0, 50.0, 25.0], 0.0)
    used = view.cluster.cards[view.rows] * FULL - view.room.sum(axis=1)
    return np.floor(base + 25 * used / MOST_GPU), least_free(view)


def fgd(view: View) -> Answer:
    """The row, and the card on it, where the expected fragment grows least."""
    gain, cards = view.fragments.gain(view.rows, view.job, view.share)
    return np.floor(100 / (1 + np.exp(-gain / FULL))), cards


BASELINES: dict[str, Callable[[View], Answer]] = {
    "random": random,
    "best-fit": best_fit,
    "dot-product": dot_product,
    "gpu-packing": gpu_packing,
    "gpu-clustering": gpu_clustering,
    "fgd": fgd,
}


def _to_hundred(scores: Floats) -> Floats:
    """Best fit as published: stretched to 0..100 over the rows seen, and floored."""
    if not len(scores) or (span := scores.max() - scores.min()) == 0:
        return scores
    found: Floats = np.floor((scores - scores.min()) * 100 / span)
    return found
