"""The CDI spec follows the cards, and a disk that does not take it ends nothing."""

import asyncio
import json
import logging

import pytest

from hami.agent import cdi
from hami.agent.cards.inventory import Found, Inventory

from .conftest import card


@pytest.fixture
async def kept(tmp_path, monkeypatch):
    """An inventory whose spec is kept in a folder below, and that folder."""
    monkeypatch.setattr(cdi, "AGAIN_S", 0.01)
    inventory, folder = Inventory(), tmp_path / "cdi"

    def spec():
        made = cdi.spec(inventory.cards(), inventory.minor, has_node=lambda _: True)
        return made if inventory.scanned else None

    task = asyncio.create_task(cdi.keep(inventory.changes(), spec, str(folder)))
    yield inventory, folder
    assert not task.done()
    task.cancel()


async def until(holds):
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - a file tells no event
            await asyncio.sleep(0.005)


def names(folder):
    try:
        return [one["name"] for one in json.loads((folder / cdi.FILE_NAME).read_text())["devices"]]
    except FileNotFoundError:
        return None


async def test_it_is_written_with_the_first_look_and_each_change_of_the_cards(kept):
    inventory, folder = kept
    await asyncio.sleep(0.02)
    assert names(folder) is None
    inventory.publish([Found(card(0), minor=0)])
    await until(lambda: names(folder) == [card(0).id])
    inventory.publish([Found(card(index), minor=index) for index in (0, 1)])
    await until(lambda: names(folder) == [card(0).id, card(1).id])


async def test_a_folder_that_cannot_be_written_is_told_once_and_tried_again(kept, caplog):
    inventory, folder = kept
    folder.touch()
    with caplog.at_level(logging.ERROR):
        inventory.publish([Found(card(0), minor=0)])
        await until(lambda: caplog.records)
        await asyncio.sleep(0.05)
        inventory.publish([Found(card(index), minor=index) for index in (0, 1)])
        folder.unlink()
        await until(lambda: names(folder) == [card(0).id, card(1).id])
    assert [one.message for one in caplog.records] == ["the CDI spec cannot be written"]
