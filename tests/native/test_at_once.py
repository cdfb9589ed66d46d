"""Contexts and modules that processes of a container take at once, at the edge of the limit (simulated driver).

The simulated driver takes their memory and then works for a while, as a real one does: what others do meanwhile counts.
"""

import json
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen

import pytest

from .conftest import Container
from .test_whole import on_card

PROCESSES = 8
CONTEXT_MIB = 480
SLOW = {"FAKE_CUDA_SLOW_MS": "250"}
MODULE_MIB = 500
FIT = 3
PATIENCE_S = 5
"""For so long a context of another process is waited for (`memory/context.c`)."""


Told = dict[str, object]


def each_says(started: "list[Popen[str]]", meanwhile: Callable[[], None] = lambda: None) -> list[Told]:
    """The next line of each, however long they take; `meanwhile` is done every few ms until the last has said it."""
    said: dict[int, Told] = {}
    lines = {process.stdout: process.pid for process in started if process.stdout is not None}
    while len(said) < len(started):
        meanwhile()
        for line in select.select([each for each in lines if lines[each] not in said], [], [], 0.005)[0]:
            said[lines[line]] = json.loads(line.readline())
    meanwhile()
    return [said[process.pid] for process in started]


class Most:
    """MiB on the card at most, looked at every few ms: what no look sees lasts less than the driver works."""

    def __init__(self, container: Container) -> None:
        self.container, self.mib = container, 0

    def look(self) -> None:
        self.mib = max(self.mib, on_card(self.container))


@contextmanager
def at_once(container: Container, *words: object, **env: str) -> Iterator["list[Popen[str]]"]:
    """Programs that keep what they have until the end; those that are refused have ended before."""
    started = [container.start("probe", *words, stdin=PIPE, **env) for _ in range(PROCESSES)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_contexts_made_at_once_never_pass_the_limit_by_more_than_one_and_as_many_as_fit_are_made(
    container: Container,
) -> None:
    limit, most = FIT * CONTEXT_MIB + 100, Most(container)
    with at_once(container, "hold", 2, 250, CUDA_DEVICE_MEMORY_LIMIT=f"{limit}m", **SLOW) as started:
        told = each_says(started, most.look)
    assert len([one for one in told if "held_mib" in one]) == FIT
    assert FIT * CONTEXT_MIB < most.mib <= limit + CONTEXT_MIB


def test_once_the_size_of_a_context_is_known_the_limit_is_not_passed_at_all(container: Container) -> None:
    limit, most = FIT * CONTEXT_MIB + 100, Most(container)
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m", **SLOW}
    assert container.probe("hold", 2, 0, **held)["held_mib"] == 2
    with at_once(container, "hold", 2, 250, **held) as started:
        told = each_says(started, most.look)
    assert [one["code"] for one in told if "code" in one] == [2] * (PROCESSES - FIT)
    assert most.mib <= limit


def modules_at_once(container: Container, kind: str) -> tuple[int, list[Told]]:
    """MiB beyond the limit at most, below 0 where it was kept; and what became of each."""
    limit, most = PROCESSES * CONTEXT_MIB + FIT * (MODULE_MIB + 2) + 100, Most(container)
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m", "PROBE_BEGIN_WHEN_TOLD": "1", **SLOW}
    with at_once(container, "module", kind, MODULE_MIB, 250, **held) as started:
        assert each_says(started) == [{"ready": True}] * PROCESSES
        for process in started:
            assert process.stdin is not None
            process.stdin.write("now\n")
            process.stdin.flush()
        told = each_says(started, most.look)
    return most.mib - limit, told


def test_modules_whose_size_is_in_their_image_never_pass_the_limit(container: Container) -> None:
    beyond, told = modules_at_once(container, "cubin")
    assert beyond <= 0
    assert sorted(one["loaded"] for one in told) == [0] * FIT + [2] * (PROCESSES - FIT)  # type: ignore[type-var]


def test_modules_of_unknown_size_pass_the_limit_by_one_at_most_and_as_many_as_fit_are_loaded(
    container: Container,
) -> None:
    beyond, told = modules_at_once(container, "text")
    assert beyond <= MODULE_MIB + 2
    assert sorted(one["loaded"] for one in told) == [0] * FIT + [2] * (PROCESSES - FIT)  # type: ignore[type-var]


def test_what_a_module_was_charged_is_back_when_it_is_unloaded(container: Container) -> None:
    limit = CONTEXT_MIB + MODULE_MIB + 100
    told = container.probe("module", "cubin", MODULE_MIB, 0, CUDA_DEVICE_MEMORY_LIMIT=f"{limit}m")
    assert (told["loaded"], told["left_mib"]) == (0, MODULE_MIB + 100)


@pytest.mark.realtime
def test_who_is_killed_while_others_wait_for_its_context_keeps_them_no_second(container: Container) -> None:
    """A dead one is noticed within ms: the bound is what tells that from patience with one who lives."""
    held = {"CUDA_DEVICE_MEMORY_LIMIT": "4g"}
    with container.start("probe", "hold", 2, 60, **held, FAKE_CUDA_SLOW_MS="60000") as first:
        while on_card(container) < CONTEXT_MIB:
            time.sleep(0.01)
        with container.start("probe", "hold", 2, 0, **held) as second:
            time.sleep(0.5)
            assert second.poll() is None
            first.kill()
            begun = time.monotonic()
            out, _ = second.communicate(timeout=60)
            assert time.monotonic() - begun < PATIENCE_S - 1
    assert json.loads(out.splitlines()[-1]) == {"held_mib": 2}
