"""The broker in a process of its own, its clients real programs, and bad luck: removed, full, stopped, killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hami.wire.policy import CorePolicy

from .node import Node, node, result, told

__all__ = ["node"]

pytestmark = pytest.mark.realtime
MIB = 1 << 20
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def total(node: Node, policy: Any) -> object:
    node.mounted(policy)
    return node.container.probe("info").get("total_mib")


def ended(node: Node, reason: str) -> float:
    return node.value("hami_broker_sessions_ended_total", reason=reason)


@pytest.mark.parametrize("what", ["the socket", "its folder"])
def test_what_is_removed_under_a_running_agent_is_there_again_and_nobody_connected_notices(
    node: Node, what: str
) -> None:
    policy = node.grant("a", mem=4000)
    node.start_agent()
    process = node.watch(policy, 30)
    if what == "the socket":
        (node.root / "a/broker/sock").unlink()
    else:
        shutil.rmtree(node.root / "a/broker")
    assert total(node, policy) == 4000  # it waits until the agent has seen to it
    node.until(lambda: ended(node, "left") == 1 and node.clients() == 1, "that program's end and no other")
    node.grant("a", mem=6000)
    assert told(process) == 6000


def test_a_grant_that_goes_leaves_its_program_running_under_its_last_limits(node: Node) -> None:
    """A container is removed, or its record lost, while its process lives on; then it is there again."""
    policy = node.grant("a", mem=4000)
    node.start_agent()
    process = node.watch(policy)
    (node.root / "a/policy").rename(node.root / "a/kept")
    node.until(lambda: ended(node, "grant_gone") == 1, "the end of the session")
    time.sleep(1.5)
    assert process.poll() is None
    (node.root / "a/kept").rename(node.root / "a/policy")
    node.until(lambda: node.clients() == 1, "another session", 20)
    node.grant("a", mem=5000)
    assert told(process) == 5000


def test_an_agent_that_stood_still_sends_nobody_away(node: Node) -> None:
    """SIGSTOP, a machine that was paused: longer than any deadline of a client."""
    policy = node.grant("a", mem=4000)
    node.start_agent()
    process = node.watch(policy)
    assert node.agent is not None
    os.kill(node.agent.pid, signal.SIGSTOP)
    node.mounted(policy)
    comes = node.container.start("probe", "watch", 60)
    node.started.append(comes)
    time.sleep(7)
    node.grant("a", mem=5000)
    os.kill(node.agent.pid, signal.SIGCONT)
    assert told(process) == 5000
    first = told(comes)
    assert first == 5000 or (first, told(comes)) == (4000, 5000)  # it may be let in before the new grant is read
    node.until(lambda: node.clients() == 2, "both")
    assert (node.clients(), ended(node, "silent"), ended(node, "deaf"), ended(node, "replaced")) == (2, 0, 0, 0)


def test_programs_at_work_notice_nothing_of_an_agent_that_is_killed_again_and_again(node: Node) -> None:
    """They wait for their time and take turns meanwhile; nobody gets more than his limit."""
    dice = random.Random(7)
    policies = [node.grant(key, mem=2000, cores=cores, core_policy=CorePolicy.FORCE) for key, cores in LIMITS.items()]
    node.start_agent()
    work = [node.start(each, "probe", "run", "spin", 14, 1_000_000, PROBE_ROUNDS_A_NS="1") for each in policies]
    for _ in range(5):
        time.sleep(dice.random())
        node.kill_agent()
        time.sleep(dice.random())
        node.start_agent()
    for each, cores in zip(work, LIMITS.values(), strict=True):
        tenths: Any = result(each)["tenths"]
        steady = tenths[10:-1]
        assert sum(steady) / len(steady) <= cores + 2
        assert max(map(sum, zip(steady, steady[1:], steady[2:], steady[3:], strict=False))) > 0
        assert not any(sum(steady[at : at + 10]) == 0 for at in range(len(steady) - 10))  # a second without any


LIMITS = {"one": 30, "two": 60}


def test_a_tenant_that_is_stopped_with_the_turn_in_hand_holds_nobody_up(node: Node) -> None:
    policies = [node.grant(key, mem=2000, cores=cores, core_policy=CorePolicy.FORCE) for key, cores in LIMITS.items()]
    node.start_agent()
    stopped = node.start(policies[0], "probe", "run", "spin", 60, 1_000_000, PROBE_ROUNDS_A_NS="1")
    works = node.start(policies[1], "probe", "run", "spin", 9, 1_000_000, PROBE_ROUNDS_A_NS="1")
    time.sleep(2)
    for _ in range(20):  # at some moment it has the turn
        os.kill(stopped.pid, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(stopped.pid, signal.SIGCONT)
        time.sleep(0.05)
    tenths: Any = result(works)["tenths"]
    assert not any(sum(tenths[at : at + 4]) == 0 for at in range(10, len(tenths) - 5)), tenths
    node.until(lambda: node.clients() == 1, "its end, and the other still there")


def test_tenants_that_end_at_any_moment_with_the_turn_in_hand_hold_nobody_up(node: Node) -> None:
    """Killed, or by a handler in a launch that waits, by turns."""
    dice = random.Random(5)
    policies = [node.grant(key, mem=2000, cores=cores, core_policy=CorePolicy.FORCE) for key, cores in LIMITS.items()]
    node.start_agent()
    works = node.start(policies[1], "probe", "run", "spin", 12, 1_000_000, PROBE_ROUNDS_A_NS="1")
    node.mounted(policies[0])
    program = node.container.tools.part("interrupted", [], ["-O1", "-ldl", "-lpthread"])
    ends = 0
    while works.poll() is None:
        seconds = f"{0.2 + dice.random() * 0.3:.3f}"
        if ends % 2 == 0:
            victim = node.container.start("probe", "run", "spin", 60, 1_000_000, PROBE_ROUNDS_A_NS="1")
            time.sleep(float(seconds) + 0.1)
            victim.kill()
            victim.communicate()
        else:
            words = [program, "end", seconds, "4"]
            subprocess.run(words, env=node.container.environment(), check=True, timeout=30, capture_output=True)
        ends += 1
    tenths: Any = result(works)["tenths"]
    assert ends > 3
    assert not any(sum(tenths[at : at + 10]) == 0 for at in range(10, len(tenths) - 11)), tenths
    node.until(lambda: node.clients() == 0, "the end of all sessions")


CROWD = """
import os, resource, socket, sys, time
place = os.open(sys.argv[1], os.O_PATH)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
kept = []
for _ in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.settimeout(2)
    try:
        one.connect(f"/proc/self/fd/{place}/sock")
    except OSError:
        continue
    kept.append(one)
print(len(kept), flush=True)
sys.stdin.readline()
"""


@contextmanager
def crowd(node: Node, key: str, count: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", CROWD, str(node.root / key / "broker"), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_container_that_takes_every_descriptor_hurts_itself_alone(node: Node) -> None:
    """Of an agent that may have 96: its own files, and another container's clients, have theirs."""
    bad, good = node.grant("bad", mem=1000), node.grant("good", mem=2000)
    node.start_agent(before=("prlimit", "--nofile=96:96"))
    assert node.agent is not None
    with crowd(node, "bad", 300):
        assert total(node, good) == 2000
        assert len(os.listdir(f"/proc/{node.agent.pid}/fd")) < 80  # noqa: PTH208
        node.grant("good", mem=3000)
        time.sleep(1.2)
        assert total(node, good) == 3000
    node.until(lambda: node.value("hami_broker_clients") == 0, "an end of the crowd")
    time.sleep(1.2)
    assert total(node, bad) == 1000


def room(folder: Path) -> int:
    left = os.statvfs(folder)
    return left.f_bavail * left.f_bsize


@NEEDS_ROOT
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_no_more_keeps_nobody_from_running_and_all_is_well_when_it_does(node: Node, how: str) -> None:
    """The folder of sockets and policies. Who has registered runs on and hears of new limits; a new one has no door."""
    folder = node.root / "b"
    policy, other = node.grant("a", mem=4000), node.policy("b", mem=2000)
    node.start_agent()
    process = node.watch(policy)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    try:
        (folder / "ledger").touch()
        node.grant("b", mem=2000)
        (folder / "broker/sock").unlink(missing_ok=True)
        if how == "full":
            (folder / "rest").write_bytes(bytes(room(folder)))
            assert room(folder) == 0
        else:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        time.sleep(1.5)
        node.grant("a", mem=5000)
        assert told(process) == 5000
        if how == "full":
            (folder / "rest").unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        assert total(node, other) == 2000
    finally:
        process.kill()
        node.kill_agent()
        subprocess.run(["umount", folder], check=True)


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
/* The time of day is put by so many seconds as the file CLOCK_PUT_BY says; no other clock is touched. */
int clock_gettime(clockid_t which, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    char text[32] = {0};
    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const int result = real(which, now);
    if (which == CLOCK_REALTIME) {
        const int file = open(getenv("CLOCK_PUT_BY"), O_RDONLY | O_CLOEXEC);
        if (file >= 0 && read(file, text, sizeof text - 1) > 0)
            now->tv_sec += atol(text);
        close(file);
    }
    return result;
}
"""


def test_a_time_of_day_that_is_put_by_hours_changes_nothing(node: Node) -> None:
    """Backwards as after a wrong battery, forwards as by the first word of a time server."""
    name, whose = "hami_container_device_utilization_ratio", {"pod": "a", "vdevice_index": "0"}
    source, shim, put_by = node.root / "clock.c", node.root / "clock.so", node.root / "put-by"
    source.write_text(CLOCK)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", source, "-o", shim, "-ldl"], check=True)
    put_by.write_text("0")
    policy = node.grant("a", mem=4000, cores=40)
    node.start_agent(nvml=True, LD_PRELOAD=str(shim), CLOCK_PUT_BY=str(put_by))
    busy = node.start(policy, "probe", "run", "sync", 30, 2_000_000, 3_000_000, PROBE_ROUNDS_A_NS="1")
    watch = node.watch(policy)
    node.until(lambda: node.value(name, **whose) > 0, "its time")
    for seconds, size in ((3600, 5000), (-7200, 6000)):
        put_by.write_text(str(seconds))
        time.sleep(3)  # the samples of before are past their two seconds
        shown = node.value(name, **whose)
        assert 0 < shown < 90, shown
        assert node.value("hami_broker_look_age_seconds") < 3
        node.grant("a", mem=size)
        begun = time.monotonic()
        assert told(watch) == size
        assert time.monotonic() - begun < 3.5
        assert (node.clients(), node.value("hami_broker_sessions_ended_total")) == (2, 0)
    busy.kill()
    node.until(lambda: node.clients() == 1, "its end")
    node.until(lambda: node.value(name, **whose) == 0, "no more time", 6)
