"""A tenant that writes into its container's ledger, which every user there may: no time is to be had that way, and
memory not for long."""

import mmap
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hami.wire.policy import CorePolicy

from .conftest import NATIVE
from .node import Node, node, result

__all__ = ["node"]

pytestmark = pytest.mark.realtime
MIB = 1 << 20
UID = "11111111-2222-4333-8444-555555555555"
WHERE = """
#include <stdio.h>
#include "memory/ledger.h"
int main(void)
{
    for (size_t card = 0; card < 2; card++)
        printf("%zu %zu ", offsetof(hami_ledger, cards[card]) + offsetof(hami_ledger_card, paid_until_ns),
               offsetof(hami_ledger, cards[card]) + offsetof(hami_ledger_card, held));
    return 0;
}
"""


def words(folder: Path) -> tuple[list[int], list[int]]:
    """Where the ledger has, of each card, up to when launches are paid for, and what is held, by its own header."""
    (folder / "where.c").write_text(WHERE)
    include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    subprocess.run(["gcc", "-std=gnu11", *include, folder / "where.c", "-o", folder / "where"], check=True)
    told = subprocess.run(folder / "where", capture_output=True, check=True).stdout
    numbers = [int(each) for each in told.split()]
    return numbers[::2], numbers[1::2]


def test_who_sets_the_budget_back_in_the_ledger_gets_no_more_time(node: Node, tmp_path: Path) -> None:
    policy = node.grant("a", mem=4000, cores=30, core_policy=CorePolicy.FORCE)
    node.start_agent()
    process = node.start(policy, "probe", "run", "spin", 8, 1_000_000, PROBE_ROUNDS_A_NS="1")
    (at, _), until, written = words(tmp_path), time.monotonic() + 6, 0
    with (node.root / "a/ledger").open("r+b") as file, mmap.mmap(file.fileno(), 0) as ledger:
        while time.monotonic() < until:
            for word in at:
                written += ledger[word : word + 8] != bytes(8)
                ledger[word : word + 8] = bytes(8)
            time.sleep(0.0005)
    tenths: Any = result(process)["tenths"]
    assert written > 20  # it is the word that the budget is kept in
    assert sum(tenths[10:50]) / 40 < 32


def test_memory_taken_by_writing_that_less_is_held_is_seen_and_ended_where_that_is_wanted(
    node: Node, tmp_path: Path
) -> None:
    policy = node.grant(UID, mem=4096)
    node.start_agent(nvml=True, exceeded="stop")
    _, held = words(tmp_path)
    first = node.start(policy, "probe", "hold", 2000, 60)
    of_pod(node, first.pid)
    node.until(lambda: node.value("hami_vgpu_memory_buffer_bytes", vdevice_index="0") == 2000 * MIB, "its memory")
    assert result(node.start(policy, "probe", "hold", 3000, 0))["code"] == 2  # the limit holds
    with (node.root / UID / "ledger").open("r+b") as file, mmap.mmap(file.fileno(), 0) as ledger:
        assert int.from_bytes(ledger[held[0] : held[0] + 8], "little") >= 2000 * MIB
        ledger[held[0] : held[0] + 8] = bytes(8)
    second = node.start(policy, "probe", "hold", 3000, 60)
    of_pod(node, second.pid)
    assert second.stdout is not None
    assert "3000" in second.stdout.readline()
    node.until(lambda: second.poll() == -9, "its end")
    assert first.poll() is None
    node.until(lambda: node.value("hami_broker_stopped_processes_total") == 1, "a count of it")
    node.until(lambda: node.value("hami_broker_exceeded_slices") == 0, "no more of it")


def of_pod(node: Node, pid: int) -> None:
    """As its cgroup says on a node."""
    folder = node.root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(f"0::/kubepods/burstable/pod{UID}/9f86d081\n")
