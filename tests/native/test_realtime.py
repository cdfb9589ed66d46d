"""Programs whose threads run in real time (SCHED_FIFO): nothing else gets the core that they spin on.

Each has a core for two seconds at most, half of which it waits for its budget; after 0.4 s without a pause the kernel
ends it.
"""

import os
import re
import subprocess
import sys

import pytest

from .conftest import Container
from .test_ways_round import START

pytestmark = pytest.mark.realtime

HIGHEST = os.sched_get_priority_max(os.SCHED_FIFO)


@pytest.fixture(autouse=True)
def _allowed() -> None:
    """Real time needs CAP_SYS_NICE, or a limit of its own."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(HIGHEST))
    except PermissionError:
        pytest.skip("this user may not run anything in real time")
    os.sched_setscheduler(0, *before)


SPINS = """
import os, resource, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
real = lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(int(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_RTTIME, (400_000, 400_000))
if sys.argv[3] == "before":
    real()
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
module, kernel, stream, ns = c_void_p(), c_void_p(), c_void_p(), c_uint64(5_000)
params = (c_void_p * 1)(ctypes.addressof(ns))
cuda.cuModuleLoadData(byref(module), b"code")
cuda.cuModuleGetFunction(byref(kernel), module, b"spin")
cuda.cuStreamCreate(byref(stream), 1)
if sys.argv[3] == "after":
    real()
until = time.monotonic() + 1.5
while time.monotonic() < until:
    for launches in range(int(sys.argv[2])):
        assert cuda.cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, params, None) == 0
    while cuda.cuStreamQuery(stream) != 0: pass
print("over")
"""


def spins(container: Container, priority: int, launches: int, when: str) -> "subprocess.CompletedProcess[str]":
    """A program that looks without a pause whether so many launches are through."""
    limits = {"CUDA_DEVICE_SM_LIMIT": "50", "GPU_CORE_UTILIZATION_POLICY": "force", "LIBCUDA_LOG_LEVEL": "4"}
    command = [sys.executable, "-c", START + SPINS, str(priority), str(launches), when]
    env = container.environment(**limits)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("priority", [1, HIGHEST])
def test_a_program_that_spins_in_real_time_for_what_is_behind_a_gate_does_not_stand_still(
    container: Container, priority: int, when: str
) -> None:
    """Whoever opens it goes before, or there is none. 20 launches, then a wait: in the middle of 44 that share one."""
    done = spins(container, priority, 20, when)
    assert (done.returncode, done.stdout) == (0, "over\n")


@pytest.mark.parametrize(("priority", "bulks"), [(10, True), (HIGHEST, False)])
def test_launches_in_real_time_are_measured_in_bulk_where_who_opens_gates_goes_before_them(
    container: Container, priority: int, bulks: bool
) -> None:
    done = spins(container, priority, 200, "before")
    assert (done.returncode, done.stdout) == (0, "over\n")
    assert bool(re.findall(r"launches in bulk: took", done.stderr)) == bulks
