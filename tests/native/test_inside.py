"""The door into the library that the scripts of tests/gpu measure through, and what it shows."""

import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import NATIVE, SHARED, Container, Tools, compile_c

pytestmark = pytest.mark.realtime

GPU = NATIVE.parent / "tests/gpu"
KERNEL_S = 200e-6
"""Of the work `matmul` in PyTorch's stand-in."""
STEP_S = 1.374e-3
"""Of its work `train`, in which nine kernels of one shape take 60 or 240 us each."""


@pytest.fixture(scope="module")
def library(tools: Tools) -> Path:
    made, exports = tools.folder / "libvgpu-inside.so", tools.folder / "exports-inside.map"
    exports.write_text((tools.folder / "exports.map").read_text().replace("global:", "global:\n    hami_inside_*;"))
    sources = [*sorted((NATIVE / "src").rglob("*.c")), tools.folder / "hooks.c", GPU / "inside.c"]
    link = [f"-Wl,--version-script={exports}", "-Wl,-z,now", "-ldl", "-lpthread"]
    compile_c(sources, made, ["-O2", *SHARED, "-DHAMI_INSIDE", *link])
    return made


def told(container: Container, library: Path, work: str, *lines: str, **card: str) -> tuple[list[list[float]], str]:
    """What the program answers to each line, NOW being when it was ready, and what the library said on stderr."""
    names = {"CUDA_DEVICE_MEMORY_LIMIT": "4g", "GPU_CORE_UTILIZATION_POLICY": "force", **card}
    command = [sys.executable, str(GPU / "torch_program.py"), work]
    env = container.environment(**names) | {"LD_PRELOAD": str(library), "PYTHONPATH": str(GPU / "standin")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, text=True, **pipes) as program:
        assert program.stdout is not None
        program.stdout.readline(), program.stdout.readline()
        now = str(time.monotonic() + 0.1)
        out, said = program.communicate("\n".join(lines).replace("NOW", now), timeout=60)
    return [[float(word) for word in line.split()] for line in out.splitlines()], said


def slices(work: str, *states: int) -> str:
    """Of 0.5 s, each under its limit, once it is ready."""
    return f"paced {work} NOW 0.2 0.5 {' '.join(map(str, states))}"


def paced(container: Container, library: Path, work: str, *states: int) -> list[tuple[float, float]]:
    """Iterations a second of each slice, and the GPU time paid for one in ns."""
    (numbers,), _ = told(container, library, work, slices(work, *states))
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_a_program_changes_its_own_limit_between_two_steps_and_goes_past_the_library(
    container: Container, library: Path
) -> None:
    held, past, free, again = paced(container, library, "matmul", 20, -1, 0, 20)
    # A busy machine keeps a program from launching now and then, so it has less than it may.
    assert 0.1 < held[0] * KERNEL_S < 0.22
    assert 0.1 < again[0] * KERNEL_S < 0.22
    assert min(past[0], free[0]) * KERNEL_S > 0.3
    assert (past[1], free[1]) == (0, 0)
    assert held[1] == pytest.approx(KERNEL_S * 1e9, rel=0.1)


def test_a_limit_goes_on_where_it_was_left_with_nothing_to_catch_up_from_the_time_without_one(
    container: Container, library: Path
) -> None:
    """What 20 ms without it had left unused was had at once: 33 % of slices of 30 ms."""
    (numbers,), _ = told(container, library, "matmul", f"paced matmul NOW 0 0.03 {'0 20 ' * 12}")
    held = sorted(rate * KERNEL_S for rate in numbers[2::4])
    assert 0.08 < sum(held[2:10]) / 8 < 0.24


def test_kernels_of_one_shape_and_two_lengths_are_held_from_moment_to_moment(
    container: Container, library: Path
) -> None:
    """One sample spoke for all launches since the one before: 27 to 61 % for 50, in slices of 0.3 s."""
    parts = [rate * STEP_S for rate, _ in paced(container, library, "train", *[50] * 8)]
    assert max(parts) < 0.56
    assert min(parts) > 0.1  # a busy machine may keep the program from launching
    assert sum(parts) / len(parts) < 0.525


def test_a_program_that_rests_is_hardly_measured_and_pays_all_the_same(container: Container, library: Path) -> None:
    """So the difference in time is what measuring costs (torch_cost.py)."""

    def measured(state: int) -> tuple[int, float]:
        known, then = slices("layer", *[99] * 8), f"steady layer 1 {state}"
        answers, said = told(container, library, "layer", known, "log 4", then, f"paced layer 0 0 0.2 {state}")
        return said.count(": pair ") + said.count(" in bulk: "), answers[-1][1]

    often, (seldom, paid_ns) = measured(99)[0], measured(-2)
    assert (often > 0, seldom) == (True, 0)
    assert paid_ns == pytest.approx(12 * 8_000, rel=0.2)


def test_what_a_program_occupies_is_known_though_the_card_is_faster_when_it_rests(
    container: Container, library: Path
) -> None:
    """A product takes 200 us on a card that has rested, and 300 on one that never does."""
    line = f"held matmul 0.15 0.2 {'0 20 ' * 8}"
    (numbers,), _ = told(container, library, "matmul", line, FAKE_CUDA_POWER="50")
    free = [took for took in numbers[2::6][1:] if not math.isnan(took)]  # it is no number where the host was away
    held = [each for each in zip(numbers[3::6][1:], numbers[5::6][1:], strict=True) if not math.isnan(each[1])]
    # The middle of all: nothing is known of a slice that a busy machine cuts short, or of a card that rested by that.
    middle = statistics.median
    occupied = middle(rate * took for rate, took in held)
    assert 0.1 < occupied < 0.22
    assert middle(took for _, took in held) < middle(free)
    without = middle(rate for rate, _ in held) * middle(free)  # by what a product takes without a limit: too much
    assert without > 1.05 * occupied
