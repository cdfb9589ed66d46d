"""Random schedules of everything that can go wrong: no double grant, no leak, nothing stuck.

`HAMI_CHAOS_SCHEDULES` sets how many (2,000; `make chaos` runs 100,000); `HAMI_CHAOS_SEED=n` replays one with its
story. The parts under test are the scheduler's own: engine, ledger, doors, bind, reflector.
"""

import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from .settle import settle
from .world import World

SCHEDULES = int(os.environ.get("HAMI_CHAOS_SCHEDULES", "2000"))
ONLY = os.environ.get("HAMI_CHAOS_SEED")
STEPS = 120
STORY = 60


def live(seed: int) -> World:
    """One schedule to its end. Raises what broke, with the way to see it again."""
    world = World(seed)
    try:
        world.run(STEPS)
        settle(world)
    except Exception as fault:
        story = "\n  ".join(world.trace[-STORY:])
        message = f"HAMI_CHAOS_SEED={seed}: {type(fault).__name__}: {fault}\n  {story}"
        raise AssertionError(message) from fault
    return world


def live_many(seeds: range) -> tuple[int, int]:
    """How many were lived and how many pods were bound in them."""
    logging.disable(logging.CRITICAL)  # in a process of its own
    return len(seeds), sum(live(seed).truth.binds for seed in seeds)


@pytest.mark.timeout(7200)
def test_no_schedule_grants_twice_leaks_or_sticks() -> None:
    if ONLY is not None:
        print("\n".join(live(int(ONLY)).trace))
        return
    began = time.monotonic()
    chunks = [range(start, min(start + 250, SCHEDULES)) for start in range(0, SCHEDULES, 250)]
    workers = max(1, min(len(chunks), os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        lived = list(pool.map(live_many, chunks))
    schedules, binds = (sum(column) for column in zip(*lived, strict=True))
    print(f"{schedules} schedules, {binds} pods bound, {time.monotonic() - began:.0f} s")
    assert schedules == SCHEDULES
    assert binds > SCHEDULES  # a chaos in which nothing is ever placed proves nothing


@pytest.mark.parametrize("seed", [46172])
def test_schedules_that_once_broke_a_law_hold_it_now(seed: int) -> None:
    """46172: a refused second bind of a pod that no watch had shown as bound gave its slice away."""
    assert live(seed).truth.binds > 0
