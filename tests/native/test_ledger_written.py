"""A tenant that writes into its container's ledger, which every user there may: time is not to be had that way."""

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
WHERE = """
#include <stdio.h>
#include "memory/ledger.h"
int main(void)
{
    for (size_t card = 0; card < 2; card++)
        printf("%zu ", offsetof(hami_ledger, cards[card]) + offsetof(hami_ledger_card, paid_until_ns));
    return 0;
}
"""


def words(folder: Path) -> list[int]:
    """Where the ledger has the time up to which launches are paid for, by its own header."""
    (folder / "where.c").write_text(WHERE)
    include = [f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    subprocess.run(["gcc", "-std=gnu11", *include, folder / "where.c", "-o", folder / "where"], check=True)
    return [int(each) for each in subprocess.run(folder / "where", capture_output=True, check=True).stdout.split()]


def test_who_sets_the_budget_back_in_the_ledger_gets_no_more_time(node: Node, tmp_path: Path) -> None:
    policy = node.grant("a", mem=4000, cores=30, core_policy=CorePolicy.FORCE)
    node.start_agent()
    process = node.start(policy, "probe", "run", "spin", 8, 1_000_000, PROBE_ROUNDS_A_NS="1")
    at, until, written = words(tmp_path), time.monotonic() + 6, 0
    with (node.root / "a/ledger").open("r+b") as file, mmap.mmap(file.fileno(), 0) as ledger:
        while time.monotonic() < until:
            for word in at:
                written += ledger[word : word + 8] != bytes(8)
                ledger[word : word + 8] = bytes(8)
            time.sleep(0.0005)
    tenths: Any = result(process)["tenths"]
    assert written > 100  # it is the word that the budget is kept in
    assert sum(tenths[10:50]) / 40 < 32
