"""Prices of the policy `pack` in a replica: whoever follows has them ready as well."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hami.scheduler.app import JUDGING, Scheduler

from .evictions import Scene

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(("synced", "families"), [(False, []), (True, ["NVIDIA"])])
async def test_a_follower_has_prices_for_its_first_decision_once_it_has_read_the_cluster(
    stage: Any, synced: bool, families: list[str]
) -> None:
    stage.node("a", mem=10000)
    Scene(stage).holder("runs", 4000)
    stage.gate.follow("another replica decides")
    replica: Any = SimpleNamespace(engine=stage.engine, gate=stage.gate, watches=SimpleNamespace(synced=synced))
    judging = asyncio.create_task(Scheduler.judge(replica))
    await asyncio.sleep(3 * JUDGING)
    judging.cancel()
    assert list(stage.ledger._index.pack._families) == families
