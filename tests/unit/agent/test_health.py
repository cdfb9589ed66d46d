import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hami.agent.cards.discover import scan
from hami.agent.cards.health import HEALTHY, XIDS, Watch, examine
from hami.agent.cards.inventory import Inventory
from hami.agent.cards.nodeconfig import NodeRules
from hami.agent.cards.xids import XidRules
from hami.model.ids import CardId
from hami.sim.cards import Bench, Rack, SimCard
from hami.sim.fixtures import bench, nvml
from hami.vendors.nvidia.driver import Driver
from hami.vendors.nvidia.nvml import EVENT_DOUBLE_BIT_ECC, EVENT_XID, CardLost, Event
from hami.vendors.nvidia.worker import Worker

__all__ = ["bench", "nvml"]


class Rig:
    """A watch over the simulated cards, with a clock of its own and what it told."""

    def __init__(self, bench: Bench, nvml: Driver, rules: XidRules | None = None) -> None:
        self.bench = bench
        self.now = 0.0
        self.told: list[str] = []
        self.inventory = Inventory()
        self.workers = Worker("events"), Worker("probes")
        self.watch = Watch(
            nvml,
            *self.workers,
            self.inventory,
            rules or XidRules(),
            quiet=60.0,
            probe_interval=10.0,
            retry=0.01,
            tell=lambda kind, reason, message: self.told.append(reason),
            clock=lambda: self.now,
        )
        self.nvml = nvml
        self.look()

    def look(self) -> None:
        self.inventory.publish(scan(self.nvml, NodeRules(), Path("/nowhere")).found)

    def healthy(self) -> list[bool]:
        return [card.healthy for card in self.inventory.cards()]

    def xid(self, index: int, xid: int) -> None:
        self.watch.take(Event(self.bench.uuid(index), EVENT_XID, xid))


@pytest.fixture
async def rig(bench: Bench, nvml: Driver) -> AsyncIterator[Rig]:
    made = Rig(bench, nvml)
    yield made
    for worker in made.workers:
        worker.close()


async def test_an_xid_holds_its_card_back_and_says_so_once(rig: Rig) -> None:
    rig.xid(1, 79)
    rig.xid(1, 79)
    assert rig.healthy() == [True, False]
    assert rig.told == ["CardUnhealthy"]
    assert "fallen off the bus" in rig.inventory.sick()[CardId(rig.bench.uuid(1))]


async def test_a_programs_fault_is_counted_and_nothing_else(rig: Rig) -> None:
    rig.xid(0, 31)
    assert rig.healthy() == [True, True]
    assert rig.watch.seen == {(rig.bench.uuid(0), 31): 1}


async def test_an_event_of_a_card_nobody_knows_or_of_another_kind_changes_nothing(rig: Rig) -> None:
    rig.watch.take(Event("GPU-of-somebody-else", EVENT_XID, 79))
    rig.watch.take(Event(rig.bench.uuid(0), EVENT_DOUBLE_BIT_ECC, 1))
    assert rig.healthy() == [True, True]


async def test_an_event_without_a_name_holds_all_back(rig: Rig) -> None:
    rig.watch.take(Event(None, EVENT_XID, 79))
    assert rig.healthy() == [False, False]


async def test_a_sound_card_is_given_back_after_a_quiet_time(rig: Rig) -> None:
    card = CardId(rig.bench.uuid(0))
    rig.xid(0, 94)
    rig.now = 59.0
    await rig.watch.probe(card)
    assert rig.healthy() == [False, True]
    rig.xid(0, 94)
    rig.now = 61.0
    await rig.watch.probe(card)
    assert rig.healthy() == [False, True]
    rig.now = 120.0
    await rig.watch.probe(card)
    assert rig.healthy() == [True, True]
    assert rig.told == ["CardUnhealthy", "CardHealthy"]


async def test_a_card_is_not_given_back_while_the_driver_wants_something_done_to_it(rig: Rig) -> None:
    card = CardId(rig.bench.uuid(0))
    rig.xid(0, 95)
    rig.now = 100.0
    rig.bench.change(0, recovery="reset")
    await rig.watch.probe(card)
    assert rig.inventory.sick()[card] == "the driver asks for recovery action reset"
    rig.bench.change(0, recovery="none", lost=True)
    await rig.watch.probe(card)
    assert rig.healthy() == [False, True]
    rig.bench.heal(0)
    await rig.watch.probe(card)
    assert rig.healthy() == [True, True]


async def test_broken_rows_are_an_ailment(bench: Bench, nvml: Driver) -> None:
    card = CardId(bench.uuid(0))
    assert examine(nvml, card) is None
    bench.change(0, remap_pending=True)
    assert "next reset" in (examine(nvml, card) or "")
    bench.change(0, remap_failed=True)
    assert "exchanged" in (examine(nvml, card) or "")
    bench.change(0, lost=True)
    with pytest.raises(CardLost):
        examine(nvml, card)


async def test_a_card_whose_driver_answers_few_questions_can_be_sound(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("V100", mem_mib=0)]))
    bench.fail(0, "nvmlDeviceGetFieldValues", "not-supported")
    assert examine(nvml, CardId(bench.uuid(0))) is None


async def until(rig: Rig, healthy: list[bool]) -> None:
    async with asyncio.timeout(30):
        async for _ in rig.inventory.changes():
            if rig.healthy() == healthy:
                return


async def test_events_of_the_driver_arrive(rig: Rig) -> None:
    running = asyncio.create_task(rig.watch.run())
    while rig.healthy() == [True, True]:
        rig.bench.xid(1, 79)  # the first may come before anybody listens
        await asyncio.sleep(0.02)
    assert rig.healthy() == [True, False]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_watching_goes_on_after_the_driver_had_a_fault(rig: Rig) -> None:
    rig.bench.fail(None, "nvmlEventSetWait", "unknown")
    running = asyncio.create_task(rig.watch.run())
    seen = set()
    while len(seen) < 3:  # made anew after each fault
        seen.add(id(rig.watch._watched))
        await asyncio.sleep(0)
    rig.bench.heal()
    while rig.healthy() == [True, True]:
        rig.bench.xid(0, 79)
        await asyncio.sleep(0.02)
    assert rig.healthy() == [False, True]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_happened_while_nobody_listened_is_found_by_looking(rig: Rig) -> None:
    rig.bench.fail(None, "nvmlEventSetWait", "unknown")
    rig.bench.change(1, recovery="reset")
    running = asyncio.create_task(rig.watch.run())
    await until(rig, [True, False])
    assert rig.told == ["CardUnhealthy"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_card_that_another_has_held_back_before_is_given_back_by_both(rig: Rig) -> None:
    card = CardId(rig.bench.uuid(1))
    rig.inventory.mark_sick(card, "scan", "no answer")
    rig.bench.change(1, lost=True)
    await rig.watch._examine_all()
    rig.bench.heal(1)
    rig.now = 61.0
    await rig.watch.probe(card)
    assert rig.inventory.sick() == {card: "no answer"}
    assert rig.inventory.mark_well(card, "scan")


async def test_metrics_tell_health_and_xids(rig: Rig) -> None:
    rig.xid(1, 79)
    samples = list(rig.watch.samples("gpu-a"))
    labels = {
        "node": "gpu-a",
        "device_index": "1",
        "device_uuid": rig.bench.uuid(1),
        "device_type": "NVIDIA A100-SXM4-40GB",
    }
    assert samples[1] == (HEALTHY, labels, 0.0)
    assert samples[2] == (XIDS, {"node": "gpu-a", "device_uuid": rig.bench.uuid(1), "xid": "79"}, 1.0)
