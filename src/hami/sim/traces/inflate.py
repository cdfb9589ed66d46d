"""The arrival order of an inflation experiment: a list shuffled, then cut or stretched to a load.

The rules are those of the experiment published with the openb trace: pods sorted by name and shuffled
with the seed; then pods drawn from the list again while what is asked for stays within
`ratio` x the cluster's GPUs, or random ones taken out of a list that asks for more. Its stop test adds the
share of one GPU for a pod of several; we do the same, so that the figures compare.
"""

import random
from collections.abc import Sequence

from msgspec.structs import replace

from hami.sim.traces.trace import Job, Machine


def inflate(jobs: Sequence[Job], machines: Sequence[Machine], ratio: float, seed: int) -> list[Job]:
    """`jobs` in a random order that the seed fixes, asking for `ratio` x all cards of `machines`."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable order, no secret
    base = sorted(jobs, key=lambda job: job.name)
    order = base.copy()
    rng.shuffle(order)
    card = largest_card(machines)
    most = ratio * sum(machine.cards * machine.card_mem for machine in machines) / card
    asked = sum(cards_worth(job, card) for job in order)
    if asked > most:
        return _cut(order, asked, most, card, rng)
    asking = any(_share(job, card) > 0 for job in base)
    while asking:  # else drawing would never end
        job = rng.choice(base)
        if asked + _share(job, card) > most:
            break
        asked += cards_worth(job, card)
        order.append(replace(job, name=f"{job.name}-again-{len(order)}"))
    return order


def _cut(order: list[Job], asked: float, most: float, card: int, rng: random.Random) -> list[Job]:
    while asked > most:
        job = order.pop(rng.randrange(len(order)))
        asked -= cards_worth(job, card)
    return order


def largest_card(machines: Sequence[Machine]) -> int:
    """Memory of the largest card, in the trace's units: shares are measured against it."""
    return max((machine.card_mem for machine in machines if machine.cards), default=1000)


def _share(job: Job, card: int) -> float:
    return max(job.card_mem / card, job.card_percent / 100, job.card_core / 100) if job.cards else 0.0


def cards_worth(job: Job, card: int) -> float:
    """What a job takes, in cards."""
    return job.cards * _share(job, card)
