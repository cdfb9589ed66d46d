"""A cluster that is steadily loaded: arrivals drawn from a trace so that what runs would fill a given part of it.

A recorded trace is mostly sparse, with a few crowded minutes, and says little about a cluster that is always
nearly full. Here jobs are drawn from it with replacement, each with its own life time, and arrive at random
(a Poisson process) at the rate at which, if all could start at once, `load` x all cards would be taken on average.
The cluster starts empty and warms up for as long as the longest job lives: from then on that average holds.
The random stream depends on the seed alone, so all policies get the same arrivals.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count, takewhile

from msgspec import Struct
from msgspec.structs import replace

from hami.model.errors import Malformed
from hami.sim.traces.inflate import cards_worth, largest_card
from hami.sim.traces.trace import Job, Machine


class Load(Struct, frozen=True):
    """How much, and for how long. Seconds."""

    load: float
    """What would be taken on average, of all cards; 1.0 is all of them."""
    measured: float = 2 * 3600.0
    """After the warm-up; what arrives before is not counted."""
    longest: float = 3 * 3600.0
    """Life times are cut to this: the few that run for months would be most of the load, and stand still."""

    @property
    def end(self) -> float:
        return self.longest + self.measured


def steady(jobs: Sequence[Job], machines: Sequence[Machine], load: Load, seed: int) -> list[Job]:
    """Jobs from 0 to the end, in the order in which they arrive. Raises `Malformed`."""
    return list(takewhile(lambda job: job.arrives < load.end, arrivals(jobs, machines, load, seed)))


def arrivals(jobs: Sequence[Job], machines: Sequence[Machine], load: Load, seed: int) -> Iterator[Job]:
    """The same without an end, one by one."""
    rng = random.Random(seed)  # noqa: S311 - a repeatable order, no secret
    base = [(job, min(life, load.longest)) for job in sorted(jobs, key=lambda job: job.name) if (life := lifetime(job))]
    card = largest_card(machines)
    work = sum(cards_worth(job, card) * life for job, life in base)
    if not work:
        raise Malformed("--pods", "no pod with cards and a life time", "times of arrival and end, for --load")
    rate = load.load * sum(machine.cards for machine in machines) / (work / len(base))
    now = 0.0
    for number in count():
        now += rng.expovariate(rate)
        job, life = rng.choice(base)
        yield replace(job, name=f"{job.name}-{number}", arrives=now, leaves=now + life)


def lifetime(job: Job) -> float:
    """Seconds a job runs once it has started; one that never leaves runs on."""
    return float("inf") if job.leaves is None else job.leaves - job.arrives
