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

from hami.sim.traces.cluster import FULL, WITHOUT, Cluster
from hami.sim.traces.fragments import Fragments
from hami.sim.traces.trace import Job

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_CPU, MOST_GPU = 128_000, 8 * FULL
"""The largest machine of openb; best fit measures with it."""


class View(Struct, frozen=True):
    """What a policy sees: the cluster, the job, the rows it may choose from and what is free there."""

    cluster: Cluster
    job: Job
    rows: Ints
    share: Ints
    """Thousandths of each of its cards that the job takes, row by row."""
    able: Bools
    """[row][card]: whether a slice of the job fits there."""
    fragments: Fragments

    @property
    def room(self) -> Ints:
        return self.cluster.room[self.rows]

    @property
    def asked(self) -> Ints:
        return self.job.cards * self.share


Answer = tuple[Floats, Ints]
"""Of each row seen: score, and the card for a job that shares one."""


def least_free(view: View) -> Ints:
    """The fullest card with room, the first of equal ones."""
    found: Ints = np.where(view.able, view.room, 10 * FULL).argmin(axis=1)
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
    if not view.job.cards:
        return np.zeros(len(view.rows)), least_free(view)
    room, cards = view.room, view.cluster.cards[view.rows]
    idle = (room == FULL).sum(axis=1)
    used = (room < FULL) & (np.arange(room.shape[1]) < cards[:, None])
    partly = (used & view.able).sum(axis=1) >= view.job.cards
    free = np.where(used & view.able, room, 10 * FULL).min(axis=1)
    score = np.where(idle < cards, max(50 - view.job.cards, 33), np.maximum(33 - idle, idle))
    return np.where(partly, np.maximum(100 - free / 10 // 10, 50), score).astype(np.float64), least_free(view)


def gpu_clustering(view: View) -> Answer:
    """Machines that run the same kind of job first. How full one is, is measured against the largest machine,
    so that small ones are full from the start; jobs without cards are no kind, and have no preference."""
    if not view.job.cards:
        return np.zeros(len(view.rows)), least_free(view)
    here = view.cluster.classes[view.rows] > 0
    here[:, WITHOUT] = False
    mine, kinds = here[:, view.cluster.class_of(view.job)], here.sum(axis=1)
    base = np.select([mine & (kinds == 1), mine, kinds == 0], [75, 50, 25], 0)
    used = 25 * (MOST_GPU - view.room.sum(axis=1)) // MOST_GPU
    return (base + used).astype(np.float64), least_free(view)


def fgd(view: View) -> Answer:
    """The row, and the card on it, where the expected fragment grows least."""
    gain, cards = view.fragments.gain(view.rows, view.job, view.share, view.able)
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
