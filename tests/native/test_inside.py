"""The door into the library that the scripts of tests/gpu measure through, on the simulated driver."""

import subprocess
import sys
import time

import pytest

from .conftest import NATIVE, SHARED, Container, compile_c

pytestmark = pytest.mark.realtime

GPU = NATIVE.parent / "tests/gpu"
KERNEL_S = 200e-6
"""Of the work `matmul` in PyTorch's stand-in."""


def test_a_program_changes_its_own_limit_between_two_steps_and_goes_past_the_library(container: Container) -> None:
    tools, library = container.tools, container.tools.folder / "libvgpu-inside.so"
    exports = (tools.folder / "exports.map").read_text().replace("global:", "global:\n    hami_inside_*;")
    (tools.folder / "exports-inside.map").write_text(exports)
    link = [f"-Wl,--version-script={tools.folder / 'exports-inside.map'}", "-Wl,-z,now", "-ldl", "-lpthread"]
    sources = [*sorted((NATIVE / "src").rglob("*.c")), tools.folder / "hooks.c", GPU / "inside.c"]
    compile_c(sources, library, ["-O2", *SHARED, "-DHAMI_INSIDE", *link])
    names = {
        "CUDA_DEVICE_MEMORY_LIMIT": "4g",
        "GPU_CORE_UTILIZATION_POLICY": "force",
        "PYTHONPATH": str(GPU / "standin"),
    }
    with subprocess.Popen(
        [sys.executable, GPU / "torch_program.py", "matmul"],
        env=container.environment(**names) | {"LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline(), program.stdout.readline()
        program.stdin.write(f"paced matmul {time.monotonic() + 0.1} 0.2 0.8 20 -1 0 20\n")
        program.stdin.close()
        told = [float(word) for word in program.stdout.readline().split()]
    parts = [rate * KERNEL_S for rate in told[::2]]
    assert parts[0] == pytest.approx(0.2, abs=0.02)
    assert parts[3] == pytest.approx(0.2, abs=0.02)
    assert min(parts[1:3]) > 0.3
    assert told[1::2] == [pytest.approx(KERNEL_S * 1e9, rel=0.1), 0, 0, pytest.approx(KERNEL_S * 1e9, rel=0.1)]
