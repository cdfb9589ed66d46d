"""Programs of several streams on the simulated driver, which runs small kernels of a process side by side."""

import json
import re
import subprocess
import sys

import pytest

from hami.cli.limits.program import steady
from hami.wire.policy import CorePolicy

from .conftest import Container, kept
from .node import Node, node, result

__all__ = ["node"]

pytestmark = pytest.mark.realtime

STREAMS = 4


def got(container: Container, limit: int, *words: object, **variables: str) -> dict[str, float]:
    wanted = {"GPU_CORE_UTILIZATION_POLICY": "force", "PROBE_ROUNDS_A_NS": "1", "CUDA_DEVICE_SM_LIMIT": str(limit)}
    wanted |= variables
    told = container.probe(*words, FAKE_CUDA_BUSY="1", **wanted)
    busy = re.search(r"busy for (\d+) ns", str(told.pop("stderr")))
    assert busy is not None
    return {
        "busy_s": int(busy[1]) / 1e9,
        **{key: value for key, value in told.items() if isinstance(value, int | float)},
    }


@pytest.mark.parametrize("hosts", [1, STREAMS])
@pytest.mark.parametrize(("limit", "ns"), [(50, 20_000), (20, 100_000), (80, 1_000_000)])
def test_streams_that_overlap_are_charged_what_they_occupy(
    container: Container, limit: int, ns: int, hosts: int
) -> None:
    """Kernels of one block run beside each other: the program has its limit of what it had without one, no quarter."""
    told = got(container, limit, "streams", hosts, STREAMS // hosts, 4, ns, 1)
    share = told["rate"] * ns / STREAMS / 1e7
    assert share <= limit + 1.5
    assert share >= limit * 0.7 - kept(told, 4)


def test_default_streams_that_are_each_threads_own_are_streams_like_others(container: Container) -> None:
    """No other thread can mark their ends, and a mark behind each launch would cost: here a tenth of it."""
    told = got(container, 50, "streams", STREAMS, 0, 4, 100_000, 1, FAKE_CUDA_EVENT_NS="20000")
    own_marks_ns = 20_700 / 8
    share = told["rate"] * (100_000 + own_marks_ns) / STREAMS / 1e7
    assert 43 - kept(told, 4) <= share <= 51.5


def test_kernels_that_fill_the_card_gain_nothing_by_several_streams(container: Container) -> None:
    told = got(container, 50, "streams", STREAMS, 1, 5, 100_000, 132)
    assert 35 - kept(told, 5) <= told["rate"] * 100_000 / 1e7 <= 51.5


TWO_LENGTHS = """
import ctypes, sys, time
cuda, H = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p
def must(result):
    assert result == 0, result
context, module, spin = H(), H(), H()
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuModuleLoadData(ctypes.byref(module), b".version 6.4\\n.visible .entry spin(.param .u64 rounds)\\n{\\n}\\n"))
must(cuda.cuModuleGetFunction(ctypes.byref(spin), module, b"spin"))
streams = [H(), H()]
for stream in streams:
    must(cuda.cuStreamCreate(ctypes.byref(stream), 1))
lengths = [ctypes.c_int64(int(word)) for word in sys.argv[1:]]
begun, launches = time.monotonic(), 0
while time.monotonic() < begun + 4:
    length = lengths[launches * 7919 // 3 % len(lengths)]
    parameters = (H * 1)(ctypes.addressof(length))
    must(cuda.cuLaunchKernel(spin, 256, 1, 1, 32, 1, 1, 0, streams[launches % 2], parameters, None))
    launches += 1
must(cuda.cuCtxSynchronize())
print(time.monotonic() - begun)
"""


@pytest.mark.parametrize("lengths", [(60_000, 240_000), (1_000_000, 20_000_000)])
def test_kernels_of_one_grid_and_two_lengths_in_two_streams_are_held(
    container: Container, lengths: tuple[int, int]
) -> None:
    """The longer ones were taken for short ones with something of the program's own between: 75 and 99.8 for 30."""
    variables = {"GPU_CORE_UTILIZATION_POLICY": "force", "CUDA_DEVICE_SM_LIMIT": "30", "FAKE_CUDA_BUSY": "1"}
    command = [sys.executable, "-c", TWO_LENGTHS, *map(str, lengths)]
    done = subprocess.run(
        command, env=container.environment(**variables), capture_output=True, text=True, check=True, timeout=60
    )
    busy = re.search(r"busy for (\d+) ns", done.stderr)
    assert busy is not None
    assert 5 < int(busy[1]) / float(done.stdout) / 1e7 <= 34


@pytest.mark.parametrize(
    ("limit", "phase_ms", "each"), [(50, 20, 1), (50, 100, 1), (20, 300, 1), (50, 20, 0), (50, 100, 0)]
)
def test_a_program_that_overlaps_now_and_then_never_has_more_than_its_limit(
    container: Container, limit: int, phase_ms: int, each: int
) -> None:
    """What was charged while its streams overlapped is no price for what runs alone.

    `each` 0: its threads' own default streams, whose ends only they can mark, and they may launch no more before that.
    """
    ns = 100_000
    told = got(container, limit, "streams", STREAMS, each, 5, ns, 1, phase_ms)
    assert told["alone"] > 0
    assert told["busy_s"] / told["seconds"] * 100 <= limit + 1.5


@pytest.mark.parametrize(("limit", "ns"), [(50, 20_000), (20, 100_000)])
def test_threads_that_come_and_go_with_streams_of_their_own_get_the_limit_together(
    container: Container, limit: int, ns: int
) -> None:
    told = got(container, limit, "threads", STREAMS, 5, ns)
    share = told["rate"] * ns / STREAMS / 1e7
    assert share <= limit + 1.5
    assert share >= limit * 0.35 - kept(told, 5)  # their streams stand still while they begin and end


@pytest.mark.parametrize("words", [("streams", STREAMS, 1, 2, 100_000, 1), ("threads", STREAMS, 2, 100_000)])
def test_launches_of_all_threads_are_counted_by_tenths_of_a_second(
    container: Container, words: tuple[object, ...]
) -> None:
    """So that rows can leave out the first second: until bursts have begun a program has less than its limit."""
    told = container.probe(
        *words, PROBE_ROUNDS_A_NS="1", GPU_CORE_UTILIZATION_POLICY="force", CUDA_DEVICE_SM_LIMIT="80"
    )
    launches = told.get("launches", told.get("together"))
    assert len(told["tenths"]) == 20
    assert launches * 0.95 <= sum(told["tenths"]) <= launches  # what was launched after the end is in none of them
    assert 10 <= steady(told, 1.0) / STREAMS * 100_000 / 1e7 <= 81
    assert max(told["tenths"]) < launches / 4


def test_a_tenant_of_several_streams_takes_turns_too_and_is_charged_what_it_occupies(node: Node) -> None:
    streams = node.grant("streams", mem=None, cores=30, core_policy=CorePolicy.FORCE)
    queued = node.grant("queued", mem=None, cores=70, core_policy=CorePolicy.FORCE)
    node.start_agent()
    plain = {"PROBE_ROUNDS_A_NS": "1"}
    first = node.start(streams, "probe", "streams", 4, 1, 8, 100_000, 1, FAKE_CUDA_BUSY="1", **plain)
    second = node.start(queued, "probe", "run", "spin", 8, 1_000_000, **plain)
    share = sum(result(second)["tenths"][20:70]) / 50  # type: ignore[index]
    out, told = first.communicate(timeout=60)
    got, busy = json.loads(out), re.search(r"busy for (\d+) ns", told)
    assert busy is not None
    occupied = int(busy[1]) / got["seconds"] / 1e7
    assert occupied <= 32
    assert share <= 72
    kernels = got["rate"] * 100_000 / 1e7
    assert kernels > 2 * occupied  # they do overlap
    assert occupied > 5
