"""A running slice whose record changes: new numbers without a restart, or a clear no."""

import asyncio

import pytest
from msgspec.structs import replace

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


async def test_who_is_on_a_card_that_is_held_back_can_shrink_all_the_same(node, running):
    """Its neighbours were promised what it gives back."""
    pod, answer = running
    node.inventory.mark_sick(uuid(1), "xid", "Xid 94")
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

    pod = node.update(pod, **record(one(1, 6000, 50)))
    where = (node.parts.folders, "write") if full.startswith("the folder") else (node.parts.seats, "_save")
    with monkeypatch.context() as patched:
        patched.setattr(*where, no_room)
        with pytest.raises(OSError, match="No space left"):
            await resize.apply(node.parts)
    ((name, reason, words),) = node.told.notes
    assert (name, reason) == ("a", "ResizeWaits")
    assert words == "container main: its new size waits for the node's disk: [Errno 28] No space left on device"
    assert await resize.apply(node.parts) == 1
    assert node.policy(answer)[uuid(1)] == "mem_mib 6000 core_percent 50"
    await node.restart_agent()
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 6000 core_percent 50"


def full_from(node, monkeypatch, write):
    """The checkpoint's disk takes so many writes and is full then."""
    real, done = node.parts.seats._save, []

    def save(seats):
        done.append(seats)
        if len(done) > write:
            raise OSError(28, "No space left on device")
        real(seats)

    monkeypatch.setattr(node.parts.seats, "_save", save)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("writes", [0, 1])
async def test_a_size_that_is_taken_back_while_the_disk_is_full_does_not_stay(
    node, running, monkeypatch, writes, restart
):
    """The new size is in the file or not, and the record as it was: nothing but the seat tells that it was begun."""
    pod, answer = running
    with monkeypatch.context() as patched:
        full_from(node, patched, writes)
        pod = node.update(pod, **record(one(1, 6000, 50)))
        with pytest.raises(OSError, match="No space left"):
            await resize.apply(node.parts)
        assert node.policy(answer)[uuid(1)].startswith(f"mem_mib {(4000, 6000)[writes]} ")
        pod = node.update(pod, **record(one(1, 4000, 20)))
        if writes:
            with pytest.raises(OSError, match="No space left"):
                await resize.apply(node.parts)
    if restart:
        await node.restart_agent()
    await resize.apply(node.parts)
    assert node.policy(answer)[uuid(1)] == "mem_mib 4000 core_percent 20"
    assert await resize.apply(node.parts) == 0
    assert not any(seat.unsettled for seat in node.parts.seats)


async def test_a_size_that_was_begun_and_may_not_be_any_more_gives_way_to_what_the_container_has(
    node, running, monkeypatch
):
    pod, answer = running
    with monkeypatch.context() as patched:
        full_from(node, patched, 1)
        pod = node.update(pod, **record(one(1, 6000, 50)))
        with pytest.raises(OSError, match="No space left"):
            await resize.apply(node.parts)
    node.update(pod, **record(one(2, 6000, 50)))
    assert await resize.apply(node.parts) == 1
    assert node.policy(answer)[uuid(1)] == "mem_mib 4000 core_percent 20"
    assert [reason for _, reason, _ in node.told.notes] == ["ResizeWaits", "ResizeRefused", "SliceResized"]


async def test_one_slice_that_waits_for_the_disk_keeps_no_other_from_its_size(node, running, monkeypatch):
    pod, answer = running
    other = node.pod("b", ask(mem=1000, cores=10, slices=one(2, 1000, 10)))
    await node.kubelet.admit(other)
    second = await node.run(other)
    node.update(pod, **record(one(1, 6000, 50)))
    node.update(other, **record(one(2, 2000, 10)))
    real, first = node.parts.folders.write, next(iter(node.parts.seats)).key

    def write(key, policy, ledger):
        if key == first:
            raise OSError(28, "No space left on device")
        return real(key, policy, ledger)

    monkeypatch.setattr(node.parts.folders, "write", write)
    with pytest.raises(OSError, match="No space left"):
        await resize.apply(node.parts)
    assert node.policy(answer)[uuid(1)].startswith("mem_mib 4000 ")
    assert node.policy(second)[uuid(2)] == "mem_mib 2000 core_percent 10"


async def test_a_container_that_restarts_while_it_is_resized_does_not_bring_its_old_size_back(
    node, running, monkeypatch
):
    """Verification has read its seat, the resize is done, and then verification writes what it has read."""
    pod, answer = running
    node.update(pod, **record(one(1, 1000, 5)))
    real = node.verifier._leave

    async def leave(*words):
        assert await resize.apply(node.parts) == 1
        await real(*words)

    monkeypatch.setattr(node.verifier, "_leave", leave)
    with pytest.raises(Exception, match="its grant has changed at this moment"):
        await node.run(pod)
    assert node.policy(answer)[uuid(1)] == "mem_mib 1000 core_percent 5"
    monkeypatch.undo()
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 1000 core_percent 5"


async def test_a_pod_that_goes_while_it_is_resized_leaves_no_seat(node, running):
    (seat,) = node.parts.seats
    await node.parts.seats.change(drop=[seat.key])
    assert not await node.parts.seats.revise(seat, seat.grant, lambda: pytest.fail("nothing is to be written"))
    assert len(node.parts.seats) == 0


@pytest.mark.parametrize("moment", ["while another is written", "while it waits to be written"])
async def test_a_seat_that_may_not_be_used_any_more_stays_so_though_it_is_to_be_resized(
    node, running, monkeypatch, moment
):
    """Verification has found another pod on it, while this round was at work."""
    pod, _ = running
    other = node.pod("b", ask(mem=1000, cores=10, slices=one(2, 1000, 10)))
    await node.kubelet.admit(other)
    answer = await node.run(other)
    node.update(pod, **record(one(1, 6000, 50)))
    node.update(other, **record(one(2, 2000, 10)))
    (first, second), real = node.parts.seats, node.parts.seats.revise

    async def revise(seat, *words):
        if (seat.key == first.key) == (moment == "while another is written"):
            await node.parts.seats.change(put=[replace(second, broken="another pod's")])
        return await real(seat, *words)

    monkeypatch.setattr(node.parts.seats, "revise", revise)
    assert await resize.apply(node.parts) == 1
    assert node.parts.seats.get(second.key) == replace(second, broken="another pod's")
    assert node.policy(answer)[uuid(2)] == "mem_mib 1000 core_percent 10"


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
    await asyncio.wait_for(done.wait(), 30)
    running.cancel()
    assert [one.message for one in caplog.records] == ["cannot tidy up"]
