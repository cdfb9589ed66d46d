"""A running slice whose record changes: new numbers without a restart, or a clear no."""

import asyncio

import pytest

from hami.agent.grants import house, resize
from hami.wire import annotations as keys

from .conftest import ask, one, uuid

RECORD = "hami.io/vgpu-devices-allocated"


def record(*slices):
    return {RECORD: keys.encode_devices(list(slices))}


@pytest.fixture
async def running(node):
    """A pod with 4000 MiB of card 1, verified and running."""
    pod = node.pod("a", ask(mem=4000, cores=20, slices=one(1, 4000, 20)))
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    assert node.policy(answer)[uuid(1)] == "mem_mib 4000 core_percent 20"
    return pod, answer


async def test_a_changed_record_changes_the_policy_of_the_running_container(node, running):
    """Row 5.16."""
    pod, answer = running
    kicks = []
    node.parts.seats.on_change = lambda: kicks.append(1)
    node.update(pod, **record(one(1, 6000, 50)))
    assert await resize.apply(node.parts) == 1
    assert node.policy(answer)[uuid(1)] == "mem_mib 6000 core_percent 50"
    assert kicks
    assert node.told.notes == [("a", "SliceResized", f"container main has 6000 MiB and 50 % of {uuid(1)} from now on")]
    assert await resize.apply(node.parts) == 0


async def test_the_new_size_outlives_a_restart_of_container_and_agent(node, running):
    pod, _ = running
    node.update(pod, **record(one(1, 6000, 50)))
    await resize.apply(node.parts)
    await node.restart_agent()
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 6000 core_percent 50"


async def test_a_slice_can_shrink(node, running):
    pod, answer = running
    node.update(pod, **record(one(1, 1000, 5)))
    assert await resize.apply(node.parts) == 1
    assert node.policy(answer)[uuid(1)] == "mem_mib 1000 core_percent 5"


async def test_more_than_the_card_has_left_is_refused_and_the_old_size_stands(node, running):
    pod, answer = running
    other = node.pod("b", ask(mem=30000, slices=one(1, 30000, 10)))
    await node.kubelet.admit(other)
    await node.run(other)
    node.update(pod, **record(one(1, 20000, 20)))
    assert await resize.apply(node.parts) == 0
    assert node.policy(answer)[uuid(1)] == "mem_mib 4000 core_percent 20"
    (note,) = node.told.notes
    assert note[1] == "ResizeRefused"
    assert "has 40960 MiB, with this pod 50000 would be promised" in note[2]


async def test_other_cards_are_for_a_new_pod(node, running):
    pod, answer = running
    node.update(pod, **record(one(2, 4000, 20)))
    assert await resize.apply(node.parts) == 0
    assert uuid(2) not in node.policy(answer)
    assert "only a new pod" in node.told.notes[0][2]


async def test_what_is_not_verified_yet_is_left_alone(node):
    pod = node.pod("a", ask(slices=one(1, 4000, 20), mem=4000, cores=20))
    await node.kubelet.admit(pod)
    node.update(pod, **record(one(1, 6000, 50)))
    assert await resize.apply(node.parts) == 0


@pytest.mark.parametrize("full", ["the folder's disk", "the checkpoint's disk"])
async def test_what_a_full_disk_cut_short_is_done_when_there_is_room(node, running, monkeypatch, full):
    pod, answer = running

    def no_room(*_):
        raise OSError(28, "No space left on device")

    node.update(pod, **record(one(1, 6000, 50)))
    where = (node.parts.folders, "write") if full.startswith("the folder") else (node.parts.seats, "_save")
    with monkeypatch.context() as patched:
        patched.setattr(*where, no_room)
        with pytest.raises(OSError, match="No space left"):
            await resize.apply(node.parts)
    assert node.told.notes == []
    assert await resize.apply(node.parts) == 1
    assert node.policy(answer)[uuid(1)] == "mem_mib 6000 core_percent 50"
    await node.restart_agent()
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 6000 core_percent 50"


async def test_a_round_that_a_full_disk_cut_short_comes_again_by_itself_and_is_told_once(node, monkeypatch, caplog):
    monkeypatch.setattr(house, "GATHER_S", 0.001)
    monkeypatch.setattr(house, "AGAIN_S", 0.001)
    keeper, rounds, done = house.House(node.parts), [], asyncio.Event()

    async def tidy():
        rounds.append(1)
        if len(rounds) < 4:
            raise OSError(28, "No space left on device")
        done.set()

    monkeypatch.setattr(keeper, "tidy", tidy)
    running = asyncio.ensure_future(keeper.run())
    keeper.changed("")
    await asyncio.wait_for(done.wait(), 5)
    running.cancel()
    assert [one.message for one in caplog.records] == ["cannot tidy up"]
