"""Launches that do not return as they were called: threads are cancelled in them, handlers jump out or end the program.

A launch under a limit waits as none does without: that must leave nothing half done.
"""

import json
import subprocess
import sys

import pytest

from hami.wire.policy import CardLimit, LibraryPolicy, encode

from .conftest import Container, Tools
from .test_vgpu import policy

pytestmark = pytest.mark.realtime

LIMIT = {"CUDA_DEVICE_SM_LIMIT": "20", "GPU_CORE_UTILIZATION_POLICY": "force"}
STREAMS = [1, 4]
"""Of several, launches go in bursts: then threads wait for each other, too."""


def interrupted(tools: Tools, container: Container, *words: object, **env: str) -> "subprocess.CompletedProcess[str]":
    program = tools.part("interrupted", [], ["-O1", "-ldl", "-lpthread"])
    command = [str(program), *map(str, words)]
    env = container.environment(**LIMIT | env)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("act", ["cancel", "jump", "again"])
def test_launches_that_are_left_half_way_keep_nobody_waiting_and_the_limit_holds(
    tools: Tools, container: Container, act: str, streams: int
) -> None:
    """Threads are cancelled, handlers jump out or launch themselves; then all goes on, and can be cancelled."""
    done = interrupted(tools, container, act, 3, streams)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["longest_ms"] < 2500  # who keeps a burst and has gone is waited for for 2 s
    assert told["cancelable"] == 1
    assert told["percent"] < streams * 20 + 2  # one block each: they run side by side


def test_contexts_streams_and_modules_that_go_while_launches_wait_hurt_nobody_else(
    tools: Tools, container: Container
) -> None:
    """No program may do so; what the driver makes of it is the driver's."""
    done = interrupted(tools, container, "gone", 4, 6)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["longest_ms"] < 2500


def test_a_thread_that_launches_as_often_as_it_may_while_it_ends_leaves_no_paid_time_behind(
    tools: Tools, container: Container
) -> None:
    """Some 50 us of work a thread; up to 1 ms of the budget went with each."""
    done = interrupted(tools, container, "ends", 3, 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert 6 < json.loads(done.stdout)["percent"] < 21.5


def test_a_handler_that_runs_in_a_forked_child_at_any_moment_waits_for_no_lock(
    tools: Tools, container: Container
) -> None:
    """Signals come all the time, and other threads take memory; the mask is afterwards as it was."""
    for _ in range(3):
        done = interrupted(tools, container, "fork", 2, 1)
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert (told["stuck"], told["masked"]) == (0, 0)


def test_who_jumps_out_of_a_start_that_waits_for_the_agent_may_start_again(tools: Tools, container: Container) -> None:
    """It waits up to ten seconds, where none does without limits."""
    cards = (CardLimit(container.bench.uuid(0), 4000),)
    nobody = str(container.ledger) + ".sock"
    told = LibraryPolicy(container="a", cards=cards, ledger=str(container.ledger), broker=nobody, fail_open=True)
    with policy(container, encode(told)):
        done = interrupted(tools, container, "start", 1, 1)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"launched": 1})


def test_words_on_a_stderr_that_nobody_reads_kill_nobody(tools: Tools, container: Container) -> None:
    code = "import ctypes, sys\nprint(ctypes.CDLL('libcuda.so.1').cuInit(0), flush=True)"
    env = container.environment(CUDA_DEVICE_MEMORY_LIMIT="nonsense")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    start = "import signal, time\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\ninput()\n"
    with subprocess.Popen(
        [sys.executable, "-c", start + code], env=env, stdin=subprocess.PIPE, text=True, **pipes
    ) as program:
        assert program.stderr is not None
        program.stderr.close()
        out, _ = program.communicate("\n", timeout=20)
    assert (program.returncode, out) == (0, "802\n")


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("after_ms", [1, 3, 6, 12, 160, 310])
def test_a_handler_may_end_the_program_while_a_launch_waits(
    tools: Tools, container: Container, after_ms: int, streams: int
) -> None:
    """What is called at exit resets the context. The library calibrates soon after the start, and then."""
    done = interrupted(tools, container, "end", after_ms / 1000, streams)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
