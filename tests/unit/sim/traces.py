"""Tiny traces for the tests of the simulator."""

from random import Random

from hami.sim.traces.trace import Job, Machine

MACHINES = (
    Machine("a1", 16_000, 64_000, 2, "A100"),
    Machine("a2", 16_000, 64_000, 2, "A100"),
    Machine("t1", 64_000, 256_000, 4, "T4"),
    Machine("host", 8_000, 32_000, 0, ""),
)


def share(name: str, milli: int, **more: object) -> Job:
    return Job(name, cpu_milli=1000, cards=1, card_mem=milli, **more)  # type: ignore[arg-type]


def whole(name: str, cards: int = 1, **more: object) -> Job:
    return Job(name, cpu_milli=2000, cards=cards, card_mem=1000, **more)  # type: ignore[arg-type]


def random_jobs(random: Random, number: int) -> list[Job]:
    """Shares, whole cards, several cards, and jobs without any; some for one model only; all leave."""
    found = []
    for place in range(number):
        kind, models = random.randrange(4), random.choice([(), (), ("T4",), ("A100", "T4")])
        cards = (0, 1, 1, random.choice([1, 2, 4]))[kind]
        mem = (0, random.choice([110, 320, 470, 810]), 1000, 1000)[kind]
        arrives = random.uniform(0, 50)
        found.append(
            Job(
                f"job-{place:04}",
                cpu_milli=random.choice([0, 500, 4000, 12_000]),
                mem_mib=random.choice([0, 1000, 16_000]),
                cards=cards,
                card_mem=mem,
                models=models if cards else (),
                arrives=arrives,
                leaves=arrives + random.uniform(1, 30),
            )
        )
    return found
