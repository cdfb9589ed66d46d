"""Contexts and modules that processes of a container take at once, at the edge of the limit (simulated driver).

The simulated driver takes their memory and then works for a while, as a real one does: what others do meanwhile counts.
"""

import json
import time
from subprocess import Popen

from .conftest import Container
from .test_whole import on_card

PROCESSES = 8
CONTEXT_MIB = 480
SLOW = {"FAKE_CUDA_SLOW_MS": "250"}
MODULE_MIB = 500
FIT = 3


def most_held(container: Container, seconds: float) -> int:
    """MiB on the card at most, looked at every few ms: what no look sees lasts less than the driver works."""
    until, most = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        most = max(most, on_card(container))
        time.sleep(0.005)
    return most


def answers(started: "list[Popen[str]]") -> list[dict[str, object]]:
    return [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in started]


def test_contexts_made_at_once_never_pass_the_limit_by_more_than_one_and_as_many_as_fit_are_made(
    container: Container,
) -> None:
    limit = FIT * CONTEXT_MIB + 100
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m", **SLOW}
    started = [container.start("probe", "hold", 2, 5, **held) for _ in range(PROCESSES)]
    most = most_held(container, 4)
    made = [one for one in answers(started) if "held_mib" in one]
    assert len(made) == FIT
    assert FIT * CONTEXT_MIB < most <= limit + CONTEXT_MIB


def test_once_the_size_of_a_context_is_known_the_limit_is_not_passed_at_all(container: Container) -> None:
    limit = FIT * CONTEXT_MIB + 100
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m", **SLOW}
    assert container.probe("hold", 2, 0, **held)["held_mib"] == 2
    started = [container.start("probe", "hold", 2, 3, **held) for _ in range(PROCESSES)]
    most = most_held(container, 2)
    refused = [one["code"] for one in answers(started) if "code" in one]
    assert refused == [2] * (PROCESSES - FIT)
    assert most <= limit


def modules_at_once(container: Container, kind: str) -> tuple[int, list[dict[str, object]]]:
    """MiB beyond the limit at most, below 0 where it was kept; and what became of each."""
    limit = PROCESSES * CONTEXT_MIB + FIT * (MODULE_MIB + 2) + 100
    begin = {"PROBE_BEGIN_AT": f"{time.monotonic() + 3:.3f}", **SLOW}
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m"}
    started = [container.start("probe", "module", kind, MODULE_MIB, 4, **held, **begin) for _ in range(PROCESSES)]
    return most_held(container, 6.5) - limit, answers(started)


def test_modules_whose_size_is_in_their_image_never_pass_the_limit(container: Container) -> None:
    beyond, told = modules_at_once(container, "cubin")
    assert beyond <= 0
    assert sorted(one["loaded"] for one in told) == [0] * FIT + [2] * (PROCESSES - FIT)


def test_modules_of_unknown_size_pass_the_limit_by_one_at_most_and_as_many_as_fit_are_loaded(
    container: Container,
) -> None:
    beyond, told = modules_at_once(container, "text")
    assert beyond <= MODULE_MIB + 2
    assert sorted(one["loaded"] for one in told) == [0] * FIT + [2] * (PROCESSES - FIT)


def test_what_a_module_was_charged_is_back_when_it_is_unloaded(container: Container) -> None:
    limit = CONTEXT_MIB + MODULE_MIB + 100
    told = container.probe("module", "cubin", MODULE_MIB, 0, CUDA_DEVICE_MEMORY_LIMIT=f"{limit}m")
    assert (told["loaded"], told["left_mib"]) == (0, MODULE_MIB + 100)


def test_who_is_killed_while_others_wait_for_its_context_keeps_them_no_second(container: Container) -> None:
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
            assert time.monotonic() - begun < 1
    assert json.loads(out.splitlines()[-1]) == {"held_mib": 2}
