"""The whole library preloaded: under sanitizers, in storms of processes and threads, and where processes are killed.

`test_vgpu_units.py` has its parts by themselves.
"""

import json
import os
import struct
import subprocess
import time

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


@pytest.mark.parametrize("kind", ["asan", "tsan"])
@pytest.mark.parametrize("act", ["strangers 200 1 20000", "threads 6 1 20000", "cards 0.5 20000"])
def test_a_sanitizer_finds_nothing_where_functions_wait_to_be_loaded(container: Container, kind: str, act: str) -> None:
    done = sanitized(container, kind, act, FAKE_CUDA_LAZY="1")
    assert (done.returncode, done.stderr) == (0, "")


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


MIB = 1 << 20
PROCESS = struct.Struct("<i12x60q")
"""Of the simulated card (`native/include/hami/sim_live.h`): a pid and where it counts, bytes on 20 cards, times."""


def on_card(container: Container) -> int:
    """MiB that live processes hold of the first card, by the driver's own account."""
    try:
        entries = PROCESS.iter_unpack(container.bench.path.with_name("cards.live").read_bytes()[168:])
        return sum(held[0] for pid, *held in entries if pid and os.path.exists(f"/proc/{pid}")) // MIB  # noqa: PTH110
    except FileNotFoundError:
        return 0


@pytest.mark.realtime
def test_a_storm_of_64_processes_of_8_threads_never_holds_more_than_the_limit(container: Container) -> None:
    """64 contexts are 30 GiB of it; what is left is fought for."""
    limit = 34_000
    begin = time.monotonic() + 6
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m", "PROBE_BEGIN_AT": f"{begin:.3f}", **WORK}
    started = [container.start("probe", "storm", 8, 1500, seed, **held) for seed in range(64)]
    most = 0
    while any(process.poll() is None for process in started):
        most = max(most, on_card(container))
        # Processes are read one after the other: what goes from one to another may count twice.
        assert most <= limit + 64
        assert time.monotonic() - begin < 200
        time.sleep(0.02)
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    assert [one for one in told if one.get("faults", 1)] == []
    assert sum(one["refused"] for one in told) > 100
    assert most > limit - 2000
    after = container.probe("mem", "linear", CUDA_DEVICE_MEMORY_LIMIT=f"{limit}m")
    assert after["taken_mib"] == (limit - 480) // 256 * 256


@pytest.mark.realtime
@pytest.mark.timeout(900)
def test_ten_thousand_kills_anywhere_leak_nothing_and_keep_no_neighbour_waiting(container: Container) -> None:
    process = container.start("probe", "kills", 10_000, CUDA_DEVICE_MEMORY_LIMIT="8g", **WORK)
    out, err = process.communicate(timeout=850)
    told = json.loads(out.splitlines()[-1])
    assert err == ""
    assert (told["kills"], told["neighbour_ended"]) == (10_000, 0)
    assert told["neighbour_rounds"] > 100
    assert told["longest_wait_ms"] < 1000
    assert container.probe("mem", "linear", CUDA_DEVICE_MEMORY_LIMIT="8g")["taken_mib"] == 7680
    assert on_card(container) == 0


def test_what_only_nvml_shows_stays_charged_while_threads_take_memory_as_it_is_read(container: Container) -> None:
    """Its answer is old when it comes: what was taken since must not be taken for the context, which it shows too."""
    limit = 2048
    held = {"CUDA_DEVICE_MEMORY_LIMIT": f"{limit}m", "HAMI_SIM_NVML_MS": "40", **WORK}
    process = container.start("probe", "storm", 8, 2000, 1, **held)
    most = 0
    while process.poll() is None:
        most = max(most, on_card(container))
        time.sleep(0.005)
    told = json.loads(process.communicate()[0].splitlines()[-1])
    assert told["faults"] == 0
    assert limit - 300 < most <= limit + 4
