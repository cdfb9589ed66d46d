"""Work in small steps: a generator that pauses between trials and returns its result.

A shell runs it to its end; a scheduler lets other requests pass between two steps. One step is at most
a few exact looks at one node, well under a millisecond.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]


def finish(steps: Steps[T]) -> T:
    """All steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
