"""Long work in the loop that answers /filter: a millisecond of it at a time, with pauses in which others are served."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from hami.plan.steps import Steps

T = TypeVar("T")

SLICE_S, PAUSE = 0.001, 3.0
"""Work at most so long at a time, then leave the loop to others for thrice as long: a quarter of it at most."""


async def unhurried(steps: Steps[T], clock: Callable[[], float] = time.perf_counter, *, pause: float = PAUSE) -> T:
    """All steps, with pauses of so many times what the work before them took; 0 gives way to who waits already."""
    began = clock()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        worked = clock() - began
        if worked >= SLICE_S:
            await asyncio.sleep(worked * pause)
            began = clock()
