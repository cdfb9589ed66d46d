"""Launches that do not return as they were called: threads are cancelled in them, handlers jump out or end the program.

A launch under a limit waits as none does without: that must leave nothing half done.
"""

import json
import subprocess

import pytest

from .conftest import Container, Tools

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
    """Threads are cancelled, handlers jump out or launch themselves; then all goes on as before."""
    done = interrupted(tools, container, act, 3, streams)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["longest_ms"] < 2500  # who keeps a burst and has gone is waited for for 2 s
    assert told["percent"] < streams * 20 + 2  # one block each: they run side by side


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("after_ms", [1, 3, 6, 12, 160, 310])
def test_a_handler_may_end_the_program_while_a_launch_waits(
    tools: Tools, container: Container, after_ms: int, streams: int
) -> None:
    """What is called at exit resets the context. The library calibrates soon after the start, and then."""
    done = interrupted(tools, container, "end", after_ms / 1000, streams)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
