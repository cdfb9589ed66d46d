"""What links are worth, asked of the simulated NVML."""

from types import SimpleNamespace

import pytest

from hami.agent.cards.inventory import Inventory
from hami.agent.cards.links import Joined, joined
from hami.agent.cards.nodeconfig import NodeRules
from hami.agent.cards.scout import RELINK, Scout
from hami.native import SIM_NVML, library
from hami.sim.cards import Bench, Rack, SimCard
from hami.sim.fixtures import bench, nvml
from hami.vendors.nvidia.driver import Driver
from hami.vendors.nvidia.nvml import Level, NvmlFault
from hami.vendors.nvidia.worker import Worker

__all__ = ["bench", "nvml"]

NOT_LINKED = [[0, 0], [0, 0]]


def of(bench: Bench, nvml: Driver) -> Joined:
    return joined(nvml, {bench.uuid(index): nvml.device(index) for index in range(nvml.count())})


def pair(bench: Bench, nvml: Driver) -> int:
    return of(bench, nvml).links[bench.uuid(0)][bench.uuid(1)]


@pytest.mark.parametrize(("level", "points"), [(0, 60), (10, 50), (20, 40), (30, 30), (40, 20), (50, 10)])
def test_the_way_over_pcie_has_hamis_points(bench: Bench, nvml: Driver, level: int, points: int) -> None:
    bench.put(Rack([SimCard("A100-40")] * 2, nvlinks=NOT_LINKED, paths=[[0, level], [level, 0]]))
    assert pair(bench, nvml) == points


@pytest.mark.parametrize("links", [1, 4, 12])
def test_each_direct_nvlink_is_worth_a_hundred_more(bench: Bench, nvml: Driver, links: int) -> None:
    bench.put(Rack([SimCard("A100-40")] * 2, nvlinks=[[0, links], [links, 0]], paths=[[0, 40], [40, 0]]))
    assert pair(bench, nvml) == 20 + 100 * links


def test_cards_on_switches_have_the_links_of_the_one_with_fewer(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("A100-40")] * 3))
    found = of(bench, nvml)
    ends = {card: len(nvml.nvlinks(nvml.device(index))) for index, card in enumerate(map(bench.uuid, range(3)))}
    assert set(ends.values()) == {12}
    assert {score // 100 for pairs in found.links.values() for score in pairs.values()} == {12}


def test_cards_without_nvlink_and_a_single_card(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("T4")] * 2))
    assert set(of(bench, nvml).links) == {bench.uuid(0), bench.uuid(1)}
    bench.put(Rack([SimCard("T4")]))
    assert of(bench, nvml) == Joined()


def test_a_pair_whose_directions_differ_counts_as_not_linked_and_is_told(bench: Bench, nvml: Driver) -> None:
    bench.put(Rack([SimCard("A100-40")] * 3, nvlinks=[[0, 4, 2], [3, 0, 2], [2, 2, 0]]))
    found = of(bench, nvml)
    one, two, three = (bench.uuid(index) for index in range(3))
    assert found.links[one][two] == found.links[two][one] == 0
    assert found.links[one][three] >= 200
    assert found.uneven == (tuple(sorted((one, two))),)


def test_a_pair_the_driver_does_not_tell_of_keeps_its_nvlinks(
    bench: Bench, nvml: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put(Rack([SimCard("A100-40")] * 2, nvlinks=[[0, 2], [2, 0]]))

    def silent(one: object, other: object) -> Level:
        raise NvmlFault(999, "nvmlDeviceGetTopologyCommonAncestor", "unknown")

    monkeypatch.setattr(nvml, "level", silent)
    assert pair(bench, nvml) == 200


async def test_links_are_asked_when_the_cards_change_and_now_and_then(bench: Bench) -> None:
    bench.put(Rack([SimCard("A100-40")] * 2, nvlinks=[[0, 4], [4, 0]]))
    told: list[str] = []
    inventory = Inventory()
    config = SimpleNamespace(rules=NodeRules(), refresh=lambda: None)
    worker, own = Worker("test"), Driver(library(SIM_NVML))
    scout = Scout(own, worker, config, inventory, tell=lambda kind, reason, message: told.append(reason))
    await scout.once()
    linked = inventory.links[bench.uuid(0)][bench.uuid(1)]
    assert linked >= 400
    bench.put(Rack([SimCard("A100-40")] * 2, nvlinks=[[0, 4], [0, 0]]))
    for _ in range(RELINK - 2):
        await scout.once()
    assert inventory.links[bench.uuid(0)][bench.uuid(1)] == linked
    await scout.once()
    assert inventory.links[bench.uuid(0)][bench.uuid(1)] == 0
    assert told.count("AsymmetricGPUP2PLink") == 1
    worker.close()
    own.close()


@pytest.mark.parametrize("silent", ["nvlinks", "pci", "device_by_uuid"])
async def test_a_card_that_does_not_tell_its_links_brings_no_other_down(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    """NVLink is at fault, and all else of the card answers: its pods go on, and so do its neighbours'."""
    bench.put(Rack([SimCard("A100-40")] * 3, nvlinks=[[0, 4, 4], [4, 0, 4], [4, 4, 0]]))
    inventory = Inventory()
    config = SimpleNamespace(rules=NodeRules(), refresh=lambda: None)
    worker, own = Worker("test"), Driver(library(SIM_NVML))
    real, asked = getattr(own, silent), []

    def faulty(what: object) -> object:
        whose = what if silent == "device_by_uuid" else own.uuid(what)
        asked.append(whose)
        # Where a card is on the bus is asked twice, first of all when it is found.
        if whose == bench.uuid(1) and asked.count(whose) == (2 if silent == "pci" else 1):
            raise NvmlFault(999, silent, "unknown")
        return real(what)

    monkeypatch.setattr(own, silent, faulty)
    try:
        assert await Scout(own, worker, config, inventory).once()
    finally:
        worker.close()
        own.close()
    assert [card.healthy for card in inventory.cards()] == [True] * 3
    assert inventory.links[bench.uuid(0)][bench.uuid(2)] >= 400
    assert inventory.links[bench.uuid(0)].get(bench.uuid(1), 0) < 400
