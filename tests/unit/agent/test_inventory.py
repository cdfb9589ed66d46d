import asyncio

from hami.agent.cards.inventory import Found, Inventory
from hami.model.card import Card
from hami.model.ids import CardId, Family


def found(index: int, mem: int = 1000) -> Found:
    card = Card(CardId(f"GPU-{index}"), Family("NVIDIA"), "NVIDIA A10", index, 10, mem, 100)
    return Found(card, minor=index + 4)


def test_cards_are_by_index_and_have_their_device_nodes() -> None:
    inventory = Inventory()
    assert not inventory.scanned
    assert inventory.publish([found(1), found(0)])
    assert inventory.scanned
    assert [card.index for card in inventory.cards()] == [0, 1]
    assert inventory.minor(CardId("GPU-1")) == 5
    assert inventory.minor(CardId("GPU-9")) is None


def test_the_same_scan_again_is_no_change_but_the_first_empty_one_is() -> None:
    inventory = Inventory()
    assert inventory.publish([])
    assert not inventory.publish([])
    assert inventory.publish([found(0)])
    assert not inventory.publish([found(0)])
    assert inventory.publish([found(0, mem=2000)])


def test_a_card_is_well_when_every_source_has_withdrawn_its_reason() -> None:
    inventory = Inventory()
    card = CardId("GPU-0")
    inventory.publish([found(0)])
    assert inventory.mark_sick(card, "xid", "Xid 79")
    assert not inventory.mark_sick(card, "scan", "no answer")
    assert inventory.sick() == {card: "Xid 79; no answer"}
    assert not inventory.mark_well(card, "xid")
    assert [each.healthy for each in inventory.cards()] == [False]
    assert inventory.mark_well(card, "scan")
    assert [each.healthy for each in inventory.cards()] == [True]
    assert not inventory.mark_well(card, "scan")


def test_sickness_outlives_a_scan() -> None:
    inventory = Inventory()
    inventory.publish([found(0)])
    inventory.mark_sick(CardId("GPU-0"), "xid", "Xid 79")
    inventory.publish([found(0, mem=2000)])
    assert [card.healthy for card in inventory.cards()] == [False]


async def test_every_reader_hears_of_a_change_and_a_slow_one_hears_the_last() -> None:
    inventory = Inventory()
    first, second = inventory.changes(), inventory.changes()
    await anext(first)
    await anext(second)
    waiting = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    assert not waiting.done()
    inventory.publish([found(0)])
    inventory.mark_sick(CardId("GPU-0"), "xid", "Xid 79")
    await waiting
    await anext(second)
    later = asyncio.ensure_future(anext(second))
    await asyncio.sleep(0)
    assert not later.done()
    later.cancel()
