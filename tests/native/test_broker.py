"""The library and a real broker: registering, live limits, usage, turns on the card, and kills of either side."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hami.wire.policy import CorePolicy, encode

from .node import Node, node, result, told

__all__ = ["node"]

HERE = Path(__file__).resolve().parent
MIB = 1 << 20

pytestmark = pytest.mark.realtime


def test_the_brokers_word_holds_over_what_the_container_was_mounted_with(node: Node) -> None:
    old = node.grant("a", mem=2048)
    node.start_agent()
    node.grant("a", mem=4096)
    time.sleep(1.2)
    got = result(node.start(old, "probe", "mem", "linear"))
    assert (got["total_mib"], got["refused_with"], got["stderr"]) == (4096, 2, "")


def test_without_the_broker_that_must_be_there_cuda_is_refused_and_says_why_once(node: Node) -> None:
    policy = node.grant("a")
    node.mounted(policy)
    begun = time.monotonic()
    got = node.container.probe("info")
    assert (got["error"], got["code"]) == ("cuInit", 802)
    assert str(got["stderr"]).count("\n") == 1
    assert "no registration with the agent of this node" in str(got["stderr"])
    assert "see that hami-agent runs on this node" in str(got["stderr"])
    assert 9 < time.monotonic() - begun < 13


def test_a_process_that_starts_while_the_agent_restarts_waits_for_it(node: Node) -> None:
    policy = node.grant("a")
    node.mounted(policy)
    process = node.container.start("probe", "info")
    time.sleep(1)
    assert process.poll() is None
    node.start_agent()
    assert result(process)["total_mib"] == 4096


def test_a_policy_that_may_fail_open_runs_under_the_limits_of_the_file(node: Node) -> None:
    node.mounted(node.policy("a", mem=1024, fail_open=True))
    got = node.container.probe("mem", "linear")
    assert got["total_mib"] == 1024
    assert "running under the limits of the policy file" in str(got["stderr"])


def test_a_limit_changes_while_the_program_runs(node: Node) -> None:
    """Row 5.16."""
    policy = node.grant("a", mem=4000)
    node.start_agent()
    process = node.watch(policy, 8)
    node.grant("a", mem=6000)
    begun = time.monotonic()
    assert told(process) == 6000
    assert time.monotonic() - begun < 2.5
    node.grant("a", mem=3000)
    assert told(process) == 3000


SIZES = """
import sys, time, pynvml as v
v.nvmlInit()
card, before = v.nvmlDeviceGetHandleByIndex(0), 0
for _ in range(int(float(sys.argv[1]) * 20) + 1):
    total = v.nvmlDeviceGetMemoryInfo(card).total >> 20
    if total != before:
        print(total, flush=True)
    before = total
    time.sleep(0.05)
"""


def test_a_program_that_never_starts_cuda_sees_a_resize_though_nobody_did_since(node: Node) -> None:
    """What nvidia-smi shows, and what a monitor shows that was there before. Row 5.16."""

    def sizes(seconds: float) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SIZES, str(seconds)]
        process = subprocess.Popen(command, env=node.container.environment(), stdout=subprocess.PIPE, text=True)
        node.started.append(process)
        return process

    policy = node.grant("a", mem=4000)
    node.start_agent()
    result(node.start(policy, "probe", "info"))  # so the ledger says 4000, too
    assert sizes(0).communicate(timeout=30)[0].split() == ["4000"]
    monitor = sizes(30)
    assert monitor.stdout is not None
    assert int(monitor.stdout.readline()) == 4000
    node.grant("a", mem=6000)
    begun = time.monotonic()
    assert int(monitor.stdout.readline()) == 6000
    assert time.monotonic() - begun < 3.5
    assert sizes(0).communicate(timeout=30)[0].split() == ["6000"]


def test_a_policy_posted_for_another_container_or_cut_short_changes_nothing(node: Node) -> None:
    policy = node.grant("a", mem=4000, fail_open=True)
    other = replace(policy, container="b/main", cards=(replace(policy.cards[0], mem_mib=9000),))
    for text in (encode(other), encode(policy).replace("4000", "9000")[:-4], ""):
        (node.root / "a/broker/policy").write_text(text)
        node.mounted(policy)
        assert node.container.probe("info")["total_mib"] == 4000


def test_a_share_of_time_changes_while_the_program_runs(node: Node) -> None:
    policy = node.grant("a", mem=None, cores=20, core_policy=CorePolicy.FORCE)
    node.start_agent()
    process = node.start(policy, "probe", "run", "spin", 8, 1_000_000, PROBE_ROUNDS_A_NS="1")
    time.sleep(3)
    node.grant("a", mem=None, cores=60, core_policy=CorePolicy.FORCE)
    tenths = result(process)["tenths"]
    assert isinstance(tenths, list)
    before, after = sum(tenths[10:28]) / 18, sum(tenths[58:78]) / 20
    assert 15 < before <= 21.5
    assert 45 < after <= 61.5


def test_what_a_container_uses_is_known_by_kind_and_gone_with_it(node: Node) -> None:
    policy = node.grant("a", mem=8192)
    node.start_agent(nvml=True)
    process = node.start(policy, "probe", "hold", 2048, 60)
    labels = {"pod": "a", "vdevice_index": "0"}
    node.until(lambda: node.value("hami_vgpu_memory_buffer_bytes", **labels) == 2048 * MIB, "the buffer")
    node.until(lambda: node.value("hami_vgpu_memory_shown_bytes", **labels) == (2048 + 480) * MIB, "NVML's view")
    node.until(lambda: node.value("hami_vgpu_memory_used_bytes", **labels) == (2048 + 480) * MIB, "all of it")
    assert node.value("hami_vgpu_memory_context_bytes", **labels) == 480 * MIB
    assert node.value("hami_vgpu_memory_module_bytes", **labels) == 0
    assert node.value("hami_vgpu_memory_limit_bytes", **labels) == 8192 * MIB
    process.kill()
    assert node.until(lambda: node.clients() == 0, "the end of the session") < 1
    assert node.value("hami_vgpu_memory_used_bytes") == 0


def test_time_used_is_seen_as_it_is_used(node: Node) -> None:
    policy = node.grant("a", mem=None, cores=40, core_policy=CorePolicy.FORCE)
    node.start_agent()
    process = node.start(policy, "probe", "run", "spin", 6, 1_000_000, PROBE_ROUNDS_A_NS="1")
    time.sleep(4.2)
    assert node.value("hami_container_device_utilization_ratio", pod="a", vdevice_index="0") == pytest.approx(40, abs=8)
    assert node.value("hami_container_last_kernel_elapsed_seconds", pod="a", vdevice_index="0") < 2
    result(process)


LISTED = """
import json, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
print(json.dumps([one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(card)]))
"""
INSIDE = """
"$PROBE" hold 1000 60 >/dev/null & holder=$!
until [ "$("$PYTHON" -c "$LISTED")" = "[$holder]" ]; do sleep 0.2; done
echo listed; wait
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")
def test_in_a_pid_namespace_its_own_processes_are_listed_and_no_others(node: Node) -> None:
    """As nvidia-smi in a pod asks: NVML tells the pids of there, the broker has told those of the host."""
    policy = node.grant("a")
    node.start_agent(nvml=True)
    node.started.append(node.container.start("probe", "hold", 500, 60, LD_PRELOAD=""))
    node.mounted(policy)
    words = {"PROBE": str(node.container.tools.folder / "probe"), "PYTHON": sys.executable, "LISTED": LISTED}
    namespace = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", INSIDE]
    inside = subprocess.Popen(namespace, env=node.container.environment() | words, stdout=subprocess.PIPE, text=True)
    node.started.append(inside)
    assert result_line(inside) == "listed\n"
    shown = {"pod": "a", "vdevice_index": "0"}
    node.until(lambda: node.value("hami_vgpu_memory_shown_bytes", **shown) == (1000 + 480) * MIB, "its memory, outside")


def result_line(process: "subprocess.Popen[str]", seconds: float = 30.0) -> str:
    """The first that it says."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else f"nothing within {seconds} s"


def test_time_that_nobody_charges_is_seen_as_nvml_shows_it(node: Node) -> None:
    """Alone under policy default, and seen to be so, its launches go straight on until a neighbour comes."""
    name, alone = "hami_container_device_utilization_ratio", {"pod": "a", "vdevice_index": "0"}
    policy, other = (node.grant(key, mem=None, cores=40) for key in ("a", "b"))
    node.start_agent(nvml=True)
    process = node.start(policy, "probe", "run", "sync", 16, 2_000_000, 3_000_000, PROBE_ROUNDS_A_NS="1")
    node.until(lambda: node.value(name, **alone) > 0, "its time")
    node.until(lambda: node.value("hami_vgpu_time_charged", **alone) == 0, "an end of its charges", 6)
    time.sleep(1)
    since, shown = time.monotonic(), []
    for _ in range(4):
        time.sleep(1)
        assert node.value("hami_vgpu_time_charged", **alone) == 0
        shown.append(node.value(name, **alone))
    node.start(other, "probe", "hold", 100, 60)
    node.until(lambda: node.value("hami_vgpu_time_charged", **alone) == 1, "a charge", 5)
    assert node.value(name, pod="b") == 0
    got: dict[str, Any] = result(process)
    begun = round((since - got["begun_ns"] / 1e9) * 10)
    had = got["tenths"][begun : begun + 40]
    assert sum(shown) / len(shown) == pytest.approx(sum(had) / 40 * 2, abs=8)  # launches of 2 ms in 100 ms


def test_containers_run_on_while_the_agent_is_away_and_register_with_the_next(node: Node) -> None:
    policy = node.grant("a", mem=4000)
    node.start_agent()
    process = node.watch(policy, 40)
    for total in (5000, 6000, 7000):
        node.kill_agent()
        node.grant("a", mem=total)
        time.sleep(0.5)
        assert process.poll() is None
        node.start_agent()
        assert told(process) == total
        assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) < 9


def test_an_agent_that_is_killed_at_any_moment_finds_everybody_again_and_none_of_them_ends(node: Node) -> None:
    """Also while programs start: they wait for the next one, and are not refused."""
    dice = random.Random(5)
    policy = node.grant("a", mem=8192)
    node.start_agent()
    node.mounted(policy)
    programs = []
    for _ in range(8):
        programs.append(node.container.start("probe", "hold", 128, 120))
        time.sleep(dice.random() * 0.1)
        node.kill_agent()
        time.sleep(dice.random() * 0.5)
        node.start_agent()
    for each in programs:
        assert each.stdout is not None
        assert json.loads(each.stdout.readline()) == {"held_mib": 128}
    node.until(lambda: node.clients() == len(programs), "all of them again", 30)
    assert [each.poll() for each in programs] == [None] * len(programs)
    for each in programs:
        each.kill()
        each.communicate()


def test_a_child_that_does_not_exec_is_no_witness_that_its_parent_lives(node: Node) -> None:
    policy = node.grant("a")
    node.start_agent()
    process = node.start(policy, "probe", "forks", 60)
    assert process.stdout is not None
    child = json.loads(process.stdout.readline())["child"]
    try:
        process.kill()
        assert node.until(lambda: node.clients() == 0, "the end of the session") < 1
    finally:
        os.kill(child, signal.SIGKILL)


STARTS_AGAIN = """
import ctypes, os
cuda = ctypes.CDLL("libcuda.so.1")
print(cuda.cuInit(0), flush=True)
child = os.fork()
if child == 0:
    print(cuda.cuInit(0), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_child_of_a_program_that_uses_the_card_is_refused_by_the_driver_and_registers_nowhere(node: Node) -> None:
    """Each took a place in the ledger and a session, and waited for an agent that was away."""
    node.mounted(node.grant("a"))
    node.start_agent()
    command = [sys.executable, "-c", STARTS_AGAIN]
    env = node.container.environment()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["0", "3"]
    node.until(lambda: node.clients() == 0 and node.sessions() > 0, "the end of the session")
    assert node.sessions() == 1


def test_a_program_that_closes_all_descriptors_is_registered_again_and_its_own_files_are_left_alone(node: Node) -> None:
    policy = node.grant("a")
    node.start_agent()
    process = node.start(policy, "probe", "closes", 12)
    again = lambda: node.value("hami_broker_sessions_ended_total") == 1 and node.clients() == 1  # noqa: E731
    node.until(again, "the end of the first session, and another")
    assert result(process)["foreign_bytes"] == 0


def test_two_hundred_kills_leave_no_byte_and_no_session_and_let_nobody_wait(node: Node) -> None:
    dice = random.Random(11)
    policy = node.grant("a", mem=8192)
    node.start_agent()
    node.mounted(policy)
    slowest = 0.0
    for _ in range(50):
        victims = [node.container.start("probe", "hold", 256, 60) for _ in range(4)]
        time.sleep(dice.random() * 0.08)
        for victim in victims:
            victim.kill()
        for victim in victims:
            victim.communicate()
        slowest = max(slowest, node.until(lambda: node.clients() == 0, "the end of the sessions"))
    assert slowest < 1
    begun = time.monotonic()
    assert node.container.probe("mem", "linear")["taken_mib"] == 8192 - 512
    assert time.monotonic() - begun < 5


def test_two_tenants_take_turns_on_the_card_and_each_has_its_share(node: Node) -> None:
    """In real time on a shared machine, so with room; turns.c has the same to the point, in simulated time."""
    one = node.grant("one", mem=None, cores=30, core_policy=CorePolicy.FORCE)
    two = node.grant("two", mem=None, cores=70, core_policy=CorePolicy.FORCE)
    node.start_agent()
    first = node.start(one, "probe", "run", "spin", 8, 1_000_000, PROBE_ROUNDS_A_NS="1")
    second = node.start(two, "probe", "run", "spin", 8, 1_000_000, PROBE_ROUNDS_A_NS="1")
    shares = [sum(result(each)["tenths"][20:70]) / 50 for each in (first, second)]  # type: ignore[index]
    assert shares[0] <= 32
    assert shares[1] <= 72
    # How much of the card both get together depends on who else uses this machine's processors.
    assert 5 < shares[0] < shares[1]


def test_who_may_use_idle_time_has_it_beside_a_neighbour_that_wants_none(node: Node) -> None:
    """And who may not has its percent alone: the control. turns.c has the neighbour's return, in simulated time."""
    free = node.grant("free", mem=None, cores=30, core_policy=CorePolicy.DEFAULT)
    strict = node.grant("strict", mem=None, cores=30, core_policy=CorePolicy.FORCE)
    idle = node.grant("idle", mem=None, cores=70, core_policy=CorePolicy.DEFAULT)
    node.start_agent()
    neighbour = node.start(idle, "probe", "hold", 64, 60)
    shares = []
    for grant in (free, strict):
        program = node.start(grant, "probe", "run", "spin", 5, 1_000_000, PROBE_ROUNDS_A_NS="1")
        shares.append(sum(result(program)["tenths"][25:45]) / 20)  # type: ignore[index]
    neighbour.kill()
    neighbour.communicate()
    assert shares[0] > 60
    assert shares[1] <= 32


def test_low_priority_yields_while_high_priority_is_at_work_and_goes_on_after(node: Node) -> None:
    """Row 3.10."""
    low = node.grant("low", mem=None, cores=0, priority=1)
    high = node.grant("high", mem=None, cores=0, priority=0)
    node.start_agent()
    slow = node.start(low, "probe", "run", "spin", 9, 1_000_000, PROBE_ROUNDS_A_NS="1")
    time.sleep(2)
    fast = node.start(high, "probe", "run", "spin", 3, 1_000_000, PROBE_ROUNDS_A_NS="1")
    result(fast)
    tenths = result(slow)["tenths"]
    assert isinstance(tenths, list)
    assert sum(tenths[35:45]) < 0.2 * sum(tenths[5:15])
    assert sum(tenths[75:85]) > 0.6 * sum(tenths[5:15])


def test_low_priority_has_the_card_while_high_priority_rests(node: Node) -> None:
    """Though it never has much queued then; a busy machine may wake it late, and it is woken each millisecond."""
    low = node.grant("low", mem=None, cores=0, priority=1)
    high = node.grant("high", mem=None, cores=0, priority=0)
    node.start_agent()
    work = ("probe", "run", "spin", 3, 1_000_000)
    alone = result(node.start(low, *work, PROBE_ROUNDS_A_NS="1"))["rate"]
    resting = node.start(high, "probe", "hold", 64, 60)
    time.sleep(2)
    beside = result(node.start(low, *work, PROBE_ROUNDS_A_NS="1"))["rate"]
    resting.kill()
    assert isinstance(beside, float)
    assert beside > 0.3 * float(str(alone))
