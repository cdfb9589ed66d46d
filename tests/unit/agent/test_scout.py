import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hami.agent.cards.inventory import Inventory
from hami.agent.cards.nodeconfig import NodeConfig
from hami.agent.cards.scout import Scout
from hami.native import SIM_NVML, library
from hami.sim.cards import Bench
from hami.sim.fixtures import bench
from hami.vendors.nvidia.driver import Driver
from hami.vendors.nvidia.nvml import DriverReplaced
from hami.vendors.nvidia.worker import Worker

__all__ = ["bench"]


class Rig:
    """A scout on simulated cards, with a clock of its own and what it told."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.now = 0.0
        self.told: list[tuple[str, str]] = []
        self.inventory = Inventory()
        self.worker = Worker("scan")
        self.nvml = Driver(library(SIM_NVML))
        self.config = NodeConfig("gpu-a", None, file)
        self.scout = Scout(
            self.nvml,
            self.worker,
            self.config,
            self.inventory,
            sysfs=Path("/nowhere"),
            stuck=0.2,
            tell=lambda kind, reason, message: self.told.append((reason, message)),
            clock=lambda: self.now,
        )

    def cards(self) -> list[tuple[int, bool]]:
        return [(card.index, card.healthy) for card in self.inventory.cards()]

    def reasons(self) -> list[str]:
        return [reason for reason, _ in self.told]

    def configure(self, **entry: object) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"nodeconfig": [{"name": "gpu-a", **entry}]}))
        fresh.rename(self.file)


@pytest.fixture
def rig(bench: Bench, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "config.json")
    yield made
    made.worker.close()
    made.nvml.close()


async def test_a_scan_fills_the_inventory(rig: Rig) -> None:
    assert await rig.scout.once()
    assert rig.cards() == [(0, True), (1, True)]
    assert rig.inventory.problem is None


async def test_a_changed_configuration_counts_at_the_next_scan(rig: Rig) -> None:
    await rig.scout.once()
    rig.configure(devicesplitcount=4, filterdevices={"index": [0]})
    await rig.scout.once()
    assert [(card.index, card.slots) for card in rig.inventory.cards()] == [(1, 4)]
    rig.configure(devicesplitcount=3, filterdevices={})
    await rig.scout.once()
    assert [(card.index, card.slots) for card in rig.inventory.cards()] == [(0, 3), (1, 3)]


async def test_a_known_card_that_falls_silent_stays_as_a_sick_one_and_recovers(bench: Bench, rig: Rig) -> None:
    await rig.scout.once()
    bench.change(1, lost=True)
    assert not await rig.scout.once()
    assert rig.cards() == [(0, True), (1, False)]
    assert not await rig.scout.once()
    assert rig.reasons() == ["CardUnhealthy"]
    assert "GPU is lost" in rig.told[0][1]
    bench.heal(1)
    assert await rig.scout.once()
    assert rig.cards() == [(0, True), (1, True)]
    assert rig.reasons() == ["CardUnhealthy", "CardHealthy"]


async def test_a_silent_card_that_is_filtered_goes(bench: Bench, rig: Rig) -> None:
    await rig.scout.once()
    bench.change(1, lost=True)
    await rig.scout.once()
    rig.configure(filterdevices={"index": [1]})
    assert await rig.scout.once()
    assert rig.cards() == [(0, True)]


async def test_a_card_that_was_never_read_is_left_out_and_said_once(bench: Bench, rig: Rig) -> None:
    bench.fail(0, "nvmlDeviceGetName", "unknown")
    for _ in range(3):
        await rig.scout.once()
    assert rig.cards() == [(1, True)]
    assert rig.reasons() == ["CardLeftOut"]
    assert bench.uuid(0) in rig.told[0][1]


async def test_a_pulled_card_is_gone(bench: Bench, rig: Rig) -> None:
    await rig.scout.once()
    bench.pull(0)
    await rig.scout.once()
    assert [card.id for card in rig.inventory.cards()] == [bench.uuid(0)]


async def test_a_driver_that_goes_away_makes_all_cards_sick_until_it_is_back(bench: Bench, rig: Rig) -> None:
    await rig.scout.once()
    bench.fail(None, "nvmlDeviceGetCount", "driver-not-loaded")
    bench.fail(None, "nvmlInit", "driver-not-loaded")
    assert not await rig.scout.once()
    assert not await rig.scout.once()
    assert rig.cards() == [(0, False), (1, False)]
    assert "Driver Not Loaded" in (rig.inventory.problem or "")
    assert rig.reasons() == ["CardsUnknown", "CardUnhealthy", "CardUnhealthy"]
    bench.heal()
    assert await rig.scout.once()
    assert rig.cards() == [(0, True), (1, True)]
    assert rig.inventory.problem is None


async def test_a_driver_that_hangs_makes_all_cards_sick(bench: Bench, rig: Rig) -> None:
    await rig.scout.once()
    bench.fail(0, "nvmlDeviceGetName", "success", delay_ms=600)
    assert not await rig.scout.once()
    assert rig.cards() == [(0, False), (1, False)]
    assert "has not answered" in (rig.inventory.problem or "")
    bench.heal(0)
    while not await rig.scout.once():
        pass
    assert rig.cards() == [(0, True), (1, True)]


async def test_a_node_whose_driver_never_comes_has_no_cards_after_a_while(bench: Bench, rig: Rig) -> None:
    bench.fail(None, "nvmlInit", "driver-not-loaded")
    await rig.scout.once()
    assert not rig.inventory.scanned
    rig.now = 31.0
    await rig.scout.once()
    assert rig.inventory.scanned
    assert rig.cards() == []


async def test_an_upgraded_driver_ends_the_process(bench: Bench, rig: Rig) -> None:
    await rig.scout.once()
    bench.path.write_text(bench.path.read_text().replace("\ncard\n", "\nfault nvmlDeviceGetCount 18 0\ncard\n", 1))
    with pytest.raises(DriverReplaced):
        await rig.scout.run()
