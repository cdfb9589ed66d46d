"""One hostile container does all it can to the broker at once, in several processes; its neighbour notices nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hami.wire.broker import Hello, Limit, Usage, Welcome, encode

from .node import Node, node, told

__all__ = ["node"]

pytestmark = pytest.mark.realtime
MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")

STORM = """
import os, random, socket, struct, sys, time
folder, seed, hello, usage, *forged = sys.argv[1], int(sys.argv[2]), *map(bytes.fromhex, sys.argv[3:])
dice, place = random.Random(seed), os.open(folder, os.O_PATH)
until = time.monotonic() + 8
kept = []

def knock(say=b""):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.setblocking(False)
    one.connect(f"/proc/self/fd/{place}/sock")
    if say:
        one.send(say)
    return one

def garbage():
    knock(dice.randbytes(dice.randrange(1, 200)))

def half():
    knock(hello[: dice.randrange(1, len(hello))])

def flood():
    one = knock(hello)
    for _ in range(3000):
        one.send(usage)

def forge():
    knock(dice.choice(forged))

def hand_over():
    one = knock(hello)
    socket.send_fds(one, [usage], [0, 1, 2, place] * 8)

def nothing_and_more():
    one = knock()
    one.send(b"")
    one.send(hello)

def deaf():
    one = knock(hello)
    one.shutdown(socket.SHUT_RD)
    kept.append(one)

def silent():
    kept.append(knock())

def doubled():
    kept.append(knock(hello))
    kept.append(knock(hello))

def large():
    knock(bytes(dice.choice((153, 4096, 60000))))

def handed_to_a_child():
    one = knock(hello)
    if os.fork() == 0:
        time.sleep(dice.random())
        os._exit(0)

done = 0
while time.monotonic() < until:
    try:
        dice.choice((garbage, half, flood, forge, hand_over, nothing_and_more, deaf, silent, doubled, large,
                     handed_to_a_child))()
        done += 1
    except OSError:
        time.sleep(0.001)
    if len(kept) > 150:
        kept.clear()
print(done)
"""


def of_agent(node: Node) -> tuple[int, float, int]:
    """Descriptors, seconds of processor time, and resident KiB."""
    assert node.agent is not None
    proc = Path(f"/proc/{node.agent.pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 10
    return len(list((proc / "fd").iterdir())), (int(fields[11]) + int(fields[12])) / TICKS, resident


def test_a_container_that_does_all_of_it_at_once_is_noticed_by_nobody_else(
    node: Node, capfd: pytest.CaptureFixture[str]
) -> None:
    node.grant("bad", mem=1000, priority=0)
    policy = node.grant("good", mem=1000)
    node.start_agent(nvml=True)
    process = node.watch(policy)
    time.sleep(1)
    before = of_agent(node)
    hello = encode(Hello(pid=1, pid_namespace=2, start_ticks=3, program="storm"))
    packets = (
        hello,
        encode(Usage(0, (1,) * 7, 2, 3, 4, 5)),
        encode(Welcome(process.pid, 1, 1)),
        encode(Limit(0, 99, 1 << 50, 100, policy.core_policy, 0, policy.cards[0].uuid, member=0)),
    )
    words = [packet.hex() for packet in packets]
    storm = [
        subprocess.Popen(
            [sys.executable, "-c", STORM, str(node.root / "bad/broker"), str(seed), *words], stdout=subprocess.PIPE
        )
        for seed in range(3)
    ]
    slowest = 0.0
    for size in (2000, 3000, 4000):
        time.sleep(1)
        begun = time.monotonic()
        node.grant("good", mem=size)
        assert told(process) == size
        slowest = max(slowest, time.monotonic() - begun)
        begun = time.monotonic()
        node.mounted(policy)
        assert node.container.probe("info")["total_mib"] == size
        slowest = max(slowest, time.monotonic() - begun)
    during = of_agent(node)
    deeds = sum(int(each.communicate(timeout=30)[0]) for each in storm)
    node.until(lambda: node.clients() == 1, "the end of all of theirs", 15)
    node.until(lambda: of_agent(node)[0] <= before[0], "the end of their descriptors", 15)
    after = of_agent(node)
    said = capfd.readouterr().err.count("\n")
    print(f"{deeds} deeds, slowest {slowest:.2f} s, agent {during} {after} of {before}, {said} lines")
    assert deeds > 300
    assert slowest < 3  # a policy is looked at once a second, and so is the socket by the library
    assert after[2] - before[2] < 20_000
    assert said < 60
    assert node.value("hami_vgpu_memory_limit_bytes", pod="good", vdevice_index="0") == 4000 * MIB
