"""A cluster that is steadily loaded: arrivals drawn from a trace so that what runs would fill a given part of it.

A recorded trace is mostly sparse, with a few crowded minutes, and says little about a cluster that is always
nearly full. Here jobs are drawn from it with replacement, each with its own life time, and arrive at random
(a Poisson process) at the rate at which, if all could start at once, `load` x all cards would be taken on average.
The clock starts in that state: those that would still run of what came before arrive at 0 with the rest of
their lives. The random stream depends on the seed alone, so all policies get the same arrivals.
"""

import random
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from hami.model.errors import Malformed
from hami.sim.inflate import cards_worth, largest_card
from hami.sim.trace import Job, Machine


class Load(Struct, frozen=True):
    """How much, and for how long. Seconds."""

    load: float
    """What would be taken on average, of all cards; 1.0 is all of them."""
    measured: float = 3 * 3600.0
    warm_up: float = 3600.0
    """Before that: the queue finds its length. Jobs that arrive then are not counted."""
    longest: float = 6 * 3600.0
    """Life times are cut to this: the few that run for months would be most of the load, and stand still."""


def steady(jobs: Sequence[Job], machines: Sequence[Machine], load: Load, seed: int) -> list[Job]:
    """Jobs from 0 to `warm_up + measured`, in the order in which they arrive. Raises `Malformed`."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable order, no secret
    base = [(job, min(life, load.longest)) for job in sorted(jobs, key=lambda job: job.name) if (life := lifetime(job))]
    card = largest_card(machines)
    work = sum(cards_worth(job, card) * life for job, life in base)
    if not work:
        raise Malformed("--pods", "no pod with cards and a life time", "times of arrival and end, for --load")
    rate = load.load * sum(machine.cards for machine in machines) / (work / len(base))
    found: list[Job] = []
    now, end = -load.longest, load.warm_up + load.measured
    while (now := now + rng.expovariate(rate)) < end:
        job, life = rng.choice(base)
        if now + life > 0:
            start = max(now, 0.0)
            found.append(replace(job, name=f"{job.name}-{len(found)}", arrives=start, leaves=now + life))
    return found


def lifetime(job: Job) -> float:
    """Seconds a job runs once it has started; one that never leaves runs on."""
    return float("inf") if job.leaves is None else job.leaves - job.arrives
