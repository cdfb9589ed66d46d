import asyncio
from collections.abc import AsyncIterator

import pytest

from hami.agent.cards.inventory import Found, Inventory
from hami.agent.cluster.handshake import report
from hami.agent.cluster.register import Registrar
from hami.kube import paths
from hami.model.card import Card
from hami.model.ids import CardId, Family
from hami.sim.apiserver import MemoryKube, Store
from hami.sim.apiserver.faults import Fault
from hami.wire.objects import Node

KEY = "hami.io/node-nvidia-register"
SHAKE = "hami.io/node-handshake"
NOON = 1_795_435_200.0  # 2026-11-23 12:00:00 UTC
ONE = '[{"id":"GPU-0","count":10,"devmem":1000,"devcore":100,"type":"NVIDIA A10","mode":"hami-core","health":true}]'


def found(index: int) -> Found:
    return Found(Card(CardId(f"GPU-{index}"), Family("NVIDIA"), "NVIDIA A10", index, 10, 1000, 100))


@pytest.fixture
async def kube() -> AsyncIterator[MemoryKube]:
    async with MemoryKube(Store()) as made:
        await made.create(paths.nodes(), {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-a"}})
        yield made


@pytest.fixture
def inventory() -> Inventory:
    return Inventory()


@pytest.fixture
def registrar(kube: MemoryKube, inventory: Inventory) -> Registrar:
    return Registrar(kube, "gpu-a", inventory, annotation=KEY, wall=lambda: NOON)


async def annotations(kube: MemoryKube) -> dict[str, str]:
    return (await kube.get(paths.nodes("gpu-a"), Node)).metadata.annotations or {}


def test_the_handshake_is_hamis_in_utc() -> None:
    assert report(NOON) == "Reported_2026-11-23 12:00:00"


async def test_cards_and_a_sign_of_life_are_written_together(
    kube: MemoryKube, inventory: Inventory, registrar: Registrar
) -> None:
    inventory.publish([found(0)])
    assert await registrar.once()
    assert registrar.problem is None
    assert await annotations(kube) == {KEY: ONE, SHAKE: "Reported_2026-11-23 12:00:00"}


async def test_nothing_is_touched_before_anything_is_known(
    kube: MemoryKube, inventory: Inventory, registrar: Registrar
) -> None:
    await kube.patch(paths.nodes("gpu-a"), {"metadata": {"annotations": {KEY: "[of before]"}}})
    assert await registrar.once()
    assert await annotations(kube) == {KEY: "[of before]"}


async def test_a_node_without_cards_loses_both_and_is_then_left_alone(
    kube: MemoryKube, inventory: Inventory, registrar: Registrar
) -> None:
    inventory.publish([found(0)])
    await registrar.once()
    inventory.publish([])
    await registrar.once()
    assert await annotations(kube) == {}
    kube.faults.script(Fault("refuse", method="PATCH"))
    assert await registrar.once()


async def test_a_node_that_is_none_is_named_with_the_option_that_says_so(
    kube: MemoryKube, inventory: Inventory, caplog: pytest.LogCaptureFixture
) -> None:
    made = Registrar(kube, "gpu-b", inventory, annotation=KEY)
    for cards in ([found(0)], []):
        inventory.publish(cards)
        assert not await made.once()
        assert made.problem == "there is no Node gpu-b: is --node-name the name that kubelet registers under?"
    assert len(caplog.records) == 1


async def test_a_sick_card_is_registered_without_health(
    kube: MemoryKube, inventory: Inventory, registrar: Registrar
) -> None:
    inventory.publish([found(0)])
    inventory.mark_sick(CardId("GPU-0"), "xid", "Xid 79")
    await registrar.once()
    assert (await annotations(kube))[KEY] == ONE.replace(',"health":true', "")


@pytest.mark.looptime
async def test_whoever_takes_the_annotation_away_gets_it_back_within_a_period(
    kube: MemoryKube, inventory: Inventory, registrar: Registrar
) -> None:
    inventory.publish([found(0)])
    running = asyncio.create_task(registrar.run())
    await asyncio.sleep(1)
    assert KEY in await annotations(kube)
    await kube.patch(paths.nodes("gpu-a"), {"metadata": {"annotations": {KEY: None, SHAKE: None}}})
    await asyncio.sleep(30)
    assert await annotations(kube) == {KEY: ONE, SHAKE: "Reported_2026-11-23 12:00:00"}
    running.cancel()


@pytest.mark.looptime
async def test_a_change_is_written_at_once(kube: MemoryKube, inventory: Inventory, registrar: Registrar) -> None:
    running = asyncio.create_task(registrar.run())
    await asyncio.sleep(7)
    assert await annotations(kube) == {}
    inventory.publish([found(0)])
    await asyncio.sleep(0.01)
    assert KEY in await annotations(kube)
    inventory.mark_sick(CardId("GPU-0"), "xid", "Xid 79")
    await asyncio.sleep(0.01)
    assert "health" not in (await annotations(kube))[KEY]
    running.cancel()


@pytest.mark.looptime
async def test_after_an_error_it_is_tried_again_soon(
    kube: MemoryKube, inventory: Inventory, registrar: Registrar
) -> None:
    kube.faults.script(Fault("refuse", times=2, status=500))
    inventory.publish([found(0)])
    running = asyncio.create_task(registrar.run())
    await asyncio.sleep(1)
    assert registrar.problem
    await asyncio.sleep(10)
    assert KEY in await annotations(kube)
    assert registrar.problem is None
    running.cancel()


async def test_what_links_are_worth_stands_beside_the_cards_and_goes_with_them(
    kube: MemoryKube, inventory: Inventory
) -> None:
    score = "hami.io/node-nvidia-score"
    registrar = Registrar(kube, "gpu-a", inventory, annotation=KEY, links_annotation=score, wall=lambda: NOON)
    one, two = CardId("GPU-0"), CardId("GPU-1")
    inventory.publish([found(0), found(1)], links={one: {two: 420}, two: {one: 420}})
    await registrar.once()
    told = (await annotations(kube))[score]
    assert told == '[{"uuid":"GPU-0","score":{"GPU-1":420}},{"uuid":"GPU-1","score":{"GPU-0":420}}]'
    inventory.publish([found(0)], links={})
    await registrar.once()
    assert score not in await annotations(kube)
    inventory.publish([found(0), found(1)], links={one: {two: 420}})
    await registrar.once()
    inventory.publish([], links={})
    await registrar.once()
    assert await annotations(kube) == {}
