"""The door into the library that the scripts of tests/gpu measure through, and what it shows."""

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


def paced(container: Container, library: Path, work: str, *states: int) -> list[tuple[float, float]]:
    """Slices of 0.5 s, each under its limit: iterations a second, and the GPU time paid for one in ns."""
    names = {"CUDA_DEVICE_MEMORY_LIMIT": "4g", "GPU_CORE_UTILIZATION_POLICY": "force"}
    command = [sys.executable, str(GPU / "torch_program.py"), work]
    env = container.environment(**names) | {"LD_PRELOAD": str(library), "PYTHONPATH": str(GPU / "standin")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=env, text=True, **pipes) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline(), program.stdout.readline()
        program.stdin.write(f"paced {work} {time.monotonic() + 0.1} 0.2 0.5 {' '.join(map(str, states))}\n")
        program.stdin.close()
        told = [float(word) for word in program.stdout.readline().split()]
    return list(zip(told[::2], told[1::2], strict=True))


def test_a_program_changes_its_own_limit_between_two_steps_and_goes_past_the_library(
    container: Container, library: Path
) -> None:
    held, past, free, again = paced(container, library, "matmul", 20, -1, 0, 20)
    assert held[0] * KERNEL_S == pytest.approx(0.2, abs=0.02)
    assert again[0] * KERNEL_S == pytest.approx(0.2, abs=0.02)
    assert min(past[0], free[0]) * KERNEL_S > 0.3
    assert (past[1], free[1]) == (0, 0)
    assert held[1] == pytest.approx(KERNEL_S * 1e9, rel=0.1)


def test_kernels_of_one_shape_and_two_lengths_are_held_from_moment_to_moment(
    container: Container, library: Path
) -> None:
    """One sample spoke for all launches since the one before: 27 to 61 % for 50, in slices of 0.3 s."""
    parts = [rate * STEP_S for rate, _ in paced(container, library, "train", *[50] * 8)]
    assert max(parts) < 0.56
    assert min(parts) > 0.25  # a busy machine may keep the program from launching
    assert sum(parts) / len(parts) < 0.525
