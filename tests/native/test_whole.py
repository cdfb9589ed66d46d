"""The whole library preloaded: under sanitizers, in storms of processes and threads, and where processes are killed.

`test_vgpu_units.py` has its parts by themselves.
"""

import json
import subprocess

import pytest

from .conftest import Container, Tools

QUIET = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
"""What a process holds at its end the system takes back."""
LIMITED = {"CUDA_DEVICE_MEMORY_LIMIT": "4g", "CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force"}
WORK = {"PROBE_ROUNDS_A_NS": "1"}
ACTS = (
    "storm 8 800 1",
    "storm 8 800 2",
    "mem mixed",
    "mem context",
    "mem heap",
    "run spin 1 20000",
    "run graph10 1 20000",
    "run memset 1 1048576",
    "run ptds 1 20000",
    "threads 6 1 20000",
    "launches 20000",
    "nvml",
)


def sanitized(container: Container, kind: str, act: str, **more: str) -> "subprocess.CompletedProcess[str]":
    env = container.environment(**LIMITED, **WORK, **QUIET) | {"LD_PRELOAD": container.tools.sanitized(kind)} | more
    command = [container.tools.folder / "probe", *act.split()]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("kind", ["asan", "tsan"])
@pytest.mark.parametrize("act", ACTS)
def test_a_sanitizer_finds_nothing_in_the_whole_library_at_work(container: Container, kind: str, act: str) -> None:
    done = sanitized(container, kind, act)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1]).get("faults", 0) == 0


@pytest.mark.parametrize(("kind", "what"), [("asan", "heap-buffer-overflow"), ("tsan", "data race")])
def test_a_fault_in_the_library_would_be_found(container: Container, kind: str, what: str) -> None:
    """The control."""
    preload = container.tools.sanitized(kind, "tests/fault.c")
    done = sanitized(container, kind, "nvml", LD_PRELOAD=preload)
    assert done.returncode != 0
    assert what in done.stderr


@pytest.mark.parametrize("kind", ["address", "thread"])
def test_a_program_with_a_sanitizer_of_its_own_starts_with_the_library_preloaded(tools: Tools, kind: str) -> None:
    """Its interceptors ask for dlsym before they work themselves."""
    program = tools.folder / f"own-{kind}"
    source = tools.folder / "own.c"
    source.write_text('#include <dlfcn.h>\nint main(void) { return dlsym(RTLD_DEFAULT, "malloc") == 0; }\n')
    subprocess.run(["gcc", "-O1", f"-fsanitize={kind}", source, "-o", program, "-ldl"], check=True)
    env = {"LD_PRELOAD": str(tools.library), "ASAN_OPTIONS": "verify_asan_link_order=0"}
    done = subprocess.run([program], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
