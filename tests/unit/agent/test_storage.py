"""A disk that takes no more grants takes the node's cards out of the running, and gives them back by itself."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from hami.agent import storage
from hami.agent.cards.inventory import Found, Inventory
from hami.agent.grants import seats as seats_module
from hami.agent.grants.checkpoint import Checkpoint, Seat, State
from hami.agent.grants.house import House
from hami.agent.grants.seats import Seats
from hami.agent.settings import Settings
from hami.agent.storage import GRANT_BYTES, SPARE_BYTES, Folder, Storage, unwritable, written
from hami.model.ask import PodRef
from hami.model.grant import Grant
from hami.model.ids import PodUid
from hami.sim.kubelet import NotStarted, Rejected
from hami.vendors.nvidia.worker import Worker

from .conftest import RESOURCE, ask, card, one, uuid

QUIET_S = 30.0


class Disk:
    """As many bytes as `room` says can be written at once; a `fault` of another kind where there is one."""

    def __init__(self, monkeypatch) -> None:
        self.room = 1 << 30
        self.fault = 0
        self.asked: list[int] = []
        self._write = storage.replace_file
        monkeypatch.setattr(storage, "replace_file", self.write)

    def write(self, path, text, mode, *, durable):
        self.asked.append(len(text))
        number = self.fault or (errno.ENOSPC if len(text) > self.room else 0)
        if number:
            raise OSError(number, {errno.ENOSPC: "No space left on device"}.get(number, "Read-only file system"))
        self._write(path, text, mode, durable=durable)


class Rig:
    """One folder on a disk, cards, a clock, and what was told."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.disk = disk
        self.now = 0.0
        self.told: list[str] = []
        self.messages: list[str] = []
        self.refused: list[float] = []
        self.inventory = Inventory()
        self.inventory.publish([Found(card(0)), Found(card(1))])
        self.worker = Worker("disks")
        self.storage = Storage(
            [Folder(folder)],
            self.worker,
            self.inventory.withhold,
            self.tell,
            refused=lambda: self.refused.append(self.now),
            quiet=QUIET_S,
            stuck=60.0,
            clock=lambda: self.now,
        )

    def tell(self, kind, reason, message):
        self.told.append(reason)
        self.messages.append(message)

    def healthy(self):
        return [each.healthy for each in self.inventory.cards()]

    async def look(self, *, after=0.0):
        self.now += after
        await self.storage.once()
        return self.healthy()


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


@pytest.fixture
async def rig(tmp_path, disk):
    made = Rig(tmp_path / "state", disk)
    yield made
    made.worker.close()


async def test_a_disk_that_is_full_at_the_start_offers_no_card_from_the_first_moment(rig):
    rig.disk.room = 0
    assert await rig.look() == [False, False]
    assert rig.told == ["DiskUnwritable"]
    assert rig.storage.problem == f"cannot write to {rig.storage._folders[0].path}: No space left on device"
    assert rig.storage.problem in rig.messages[0]


async def test_a_moment_without_room_withdraws_nothing_and_is_looked_at_again_soon(rig):
    await rig.look()
    rig.disk.room = 0
    assert rig.storage.pause == storage.LOOK_S
    assert await rig.look() == [True, True]
    assert rig.storage.pause == storage.AGAIN_S
    assert rig.refused == [0.0]  # what is written meanwhile does not count before it is on the disk
    rig.disk.room = 1 << 30
    assert await rig.look() == [True, True]
    assert rig.storage.pause == storage.LOOK_S
    rig.disk.room = 0
    assert await rig.look() == [True, True]  # what was forgiven does not count any more
    assert rig.told == []


async def test_a_disk_that_becomes_read_only_withdraws_all_cards_and_says_so_once(rig):
    await rig.look()
    rig.disk.fault = errno.EROFS
    for _ in range(4):
        await rig.look(after=10)
    assert rig.healthy() == [False, False]
    assert rig.told == ["DiskUnwritable"]
    assert "Read-only file system" in rig.messages[0]


async def test_the_cards_come_back_when_the_disk_has_been_well_for_a_while(rig):
    rig.disk.room = 0
    await rig.look()
    rig.disk.room = 1 << 30
    assert await rig.look(after=10) == [False, False]
    assert await rig.look(after=QUIET_S - 1) == [False, False]
    assert await rig.look(after=1) == [True, True]
    assert rig.told == ["DiskUnwritable", "DiskWritable"]
    assert rig.storage.problem is None


async def test_a_disk_that_fills_again_meanwhile_begins_its_while_anew(rig):
    rig.disk.room = 0
    await rig.look()
    rig.disk.room = 1 << 30
    await rig.look()
    rig.disk.room = 0
    await rig.look(after=QUIET_S)
    rig.disk.room = 1 << 30
    assert await rig.look() == [False, False]
    assert await rig.look(after=QUIET_S - 1) == [False, False]
    assert await rig.look(after=1) == [True, True]


async def test_a_disk_at_its_brim_does_not_take_the_cards_back_and_forth(rig):
    rig.disk.room = GRANT_BYTES
    assert await rig.look() == [True, True]  # enough for a grant
    rig.disk.room = GRANT_BYTES - 1
    await rig.look()
    assert await rig.look() == [False, False]
    rig.disk.room = GRANT_BYTES + SPARE_BYTES - 1
    for _ in range(10):
        assert await rig.look(after=QUIET_S) == [False, False]
    rig.disk.room += 1
    await rig.look()
    assert await rig.look(after=QUIET_S) == [True, True]


async def test_the_reason_told_is_that_of_now(rig):
    rig.disk.room = 0
    await rig.look()
    rig.disk.fault = errno.EROFS
    await rig.look()
    assert "Read-only file system" in rig.storage.problem
    assert rig.told == ["DiskUnwritable"]


async def test_a_disk_that_stands_still_is_one_that_cannot_be_written_to(rig, monkeypatch):
    moved = threading.Event()
    monkeypatch.setattr(storage, "replace_file", lambda *_, **__: moved.wait(60))
    rig.storage._stuck = 0.01
    try:
        assert await rig.look() == [False, False]
        assert "no answer" in rig.storage.problem
        assert rig.refused == []  # to write to it would only hold up who need not write
    finally:
        moved.set()


async def test_cards_that_are_found_later_are_held_back_too_and_keep_reasons_of_their_own(rig):
    rig.disk.room = 0
    await rig.look()
    rig.inventory.mark_sick(uuid(1), "xid", "Xid 79")
    rig.inventory.publish([Found(card(index)) for index in range(3)])
    assert rig.healthy() == [False, False, False]
    rig.inventory.withhold(None)
    assert rig.healthy() == [True, False, True]


def test_a_checkpoint_must_fit_a_second_time(tmp_path, disk):
    path = tmp_path / "allocations.json"
    path.write_bytes(bytes(1000))
    assert unwritable([Folder(tmp_path, rewritten=path)]) is None
    assert unwritable([Folder(tmp_path, rewritten=tmp_path / "none yet")]) is None
    assert disk.asked == [GRANT_BYTES + 1000, GRANT_BYTES]


def test_a_look_leaves_nothing_behind(tmp_path):
    assert unwritable([Folder(tmp_path / "made/of/it")]) is None
    assert list((tmp_path / "made/of/it").iterdir()) == []
    (tmp_path / "file").touch()
    assert unwritable([Folder(tmp_path / "file/in")]) == f"cannot write to {tmp_path}/file/in: Not a directory"


def test_what_a_look_that_was_killed_left_behind_takes_no_room_from_the_next(tmp_path):
    """Nor does it for good: on a disk at its brim that alone would keep the cards back."""
    (tmp_path / ".probe").write_bytes(bytes(GRANT_BYTES))
    (tmp_path / "..probe.new").write_bytes(bytes(GRANT_BYTES))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.os, "urandom", lambda count: seen.extend(tmp_path.iterdir()) or bytes(count))
        assert unwritable([Folder(tmp_path)]) is None
    assert seen == [tmp_path / "..probe.new"]  # is written anew from its beginning
    assert list(tmp_path.iterdir()) == []


ON_A_TMPFS = """
import subprocess, sys
from pathlib import Path
from hami.agent.storage import Folder, unwritable
disk, folder = Path(sys.argv[1]), Folder(Path(sys.argv[1]) / "a")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
print(unwritable([folder]))
try:
    (disk / "fill").write_bytes(bytes(2 << 20))
except OSError:
    print(unwritable([folder]), list(folder.path.iterdir()))
(disk / "fill").unlink()
print(unwritable([folder]))
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
print(unwritable([folder]))
"""


def test_a_real_disk_that_is_full_or_read_only_is_seen(tmp_path):
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("only root may mount")
    words = ["unshare", "-m", sys.executable, "-c", ON_A_TMPFS, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        pytest.skip("nothing can be mounted here")
    place = f"cannot write to {tmp_path}/a: "
    assert done.stdout.splitlines() == [
        "None",
        f"{place}No space left on device []",
        "None",
        f"{place}Read-only file system",
    ]


def test_each_folder_that_grants_are_written_to_is_looked_at():
    settings = Settings(node_name="n", state_dir="/s", hook_path="/h")
    assert [str(each.path) for each in written(settings)] == ["/s", "/h/vgpu/allocations"]
    ledgers = replace(settings, ledger_dir="/run/hami")
    assert [str(each.path) for each in written(ledgers)] == ["/s", "/h/vgpu/allocations", "/run/hami"]


# On a whole node


@pytest.fixture
async def watched(make_node, disk, monkeypatch):
    """A node whose disk is watched, and the disk: the checkpoint is on it."""
    node = await make_node()
    worker = Worker("disks")
    made = Storage(written(node.settings), worker, node.inventory.withhold, quiet=QUIET_S)
    node.parts = replace(node.parts, unwritten=made.suspect)
    node.allocator._parts = node.verifier._parts = node.parts
    save = node.checkpoint.save

    def saved(seats, **how):
        if disk.fault or disk.room <= 0:
            raise OSError(disk.fault or errno.ENOSPC, "No space left on device")
        save(seats, **how)

    monkeypatch.setattr(node.checkpoint, "save", saved)
    await made.once()
    yield node, disk, made
    worker.close()


async def listed(node, count):
    async with asyncio.timeout(30):
        while node.kubelet.allocatable(RESOURCE) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_grant_that_cannot_be_written_leads_to_a_look_and_kubelet_offers_the_cards_to_nobody(watched):
    node, disk, made = watched
    running = node.pod("running", ask(slices=one(1)))
    await node.kubelet.admit(running)
    assert await node.run(running)
    disk.room = 0
    with pytest.raises(Rejected, match="No space left"):
        await node.kubelet.admit(node.pod("a", ask(slices=one(2))))
    assert made._suspected.is_set()
    await made.once()
    await made.once()
    await listed(node, 0)
    with pytest.raises(Rejected, match="no healthy devices"):
        await node.kubelet.admit(node.pod("b", ask(slices=one(3))))
    # Who runs goes on, and starts again.
    assert (await node.run(running)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)
    disk.room = 1 << 30
    made._clock = iter((0.0, QUIET_S)).__next__
    await made.once()
    await made.once()
    await listed(node, 80)
    await node.kubelet.admit(node.pod("c", ask(slices=one(2))))


async def test_a_start_and_a_tidying_that_cannot_be_written_lead_to_a_look_too(watched):
    node, disk, made = watched
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    disk.room = 0
    with pytest.raises(NotStarted, match="No space left"):
        await node.run(pod)
    assert made._suspected.is_set()
    made._suspected.clear()
    node.delete(pod)
    node.pods.complete()
    house = House(node.parts)
    house.changed(pod.metadata.uid)
    tidying = asyncio.create_task(house.run())
    try:
        async with asyncio.timeout(30):
            await made._suspected.wait()
    finally:
        tidying.cancel()


@pytest.fixture
def unsynced(monkeypatch):
    """While it holds an error's number, what was written does not get to the disk, and only fsync tells."""
    fault = []

    def fsync(descriptor):
        if fault:
            raise OSError(fault[0], os.strerror(fault[0]))

    monkeypatch.setattr("hami.agent.files.os.fsync", fsync)
    return fault


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_disk_that_takes_nothing_when_it_is_waited_for_is_one_that_cannot_be_written_to(
    tmp_path, unsynced, number
):
    folder = Folder(tmp_path, rewritten=tmp_path / "allocations.json")
    assert unwritable([folder, Folder(tmp_path / "policies")]) is None
    unsynced.append(number)
    assert unwritable([folder]) == f"cannot write to {tmp_path}: {os.strerror(number)}"
    assert unwritable([Folder(tmp_path / "policies")]) is None  # made anew after a power cut
    assert [one.name for one in tmp_path.iterdir()] == ["policies"]


async def test_after_a_failed_wait_for_the_disk_nothing_is_granted_until_it_has_taken_everything(
    watched, unsynced, monkeypatch
):
    node, _, made = watched
    monkeypatch.setattr(seats_module, "KEEP_S", 0.01)
    monkeypatch.setattr(seats_module, "AGAIN_S", 0.01)
    seats = node.parts.seats
    heard = asyncio.Event()
    seats.on_unkept = lambda: (heard.set(), made.suspect())
    keeping = asyncio.create_task(seats.keep())
    try:
        await node.kubelet.admit(node.pod("before", ask(slices=one(1))))
        unsynced.append(errno.EIO)
        await node.kubelet.admit(node.pod("meanwhile", ask(slices=one(2))))
        async with asyncio.timeout(30):
            await heard.wait()
        assert made._suspected.is_set()
        with pytest.raises(Rejected, match="Input/output error"):
            await node.kubelet.admit(node.pod("a", ask(slices=one(3))))
        assert len(seats) == 2
        await made.once()
        await made.once()
        await listed(node, 0)
        assert made.problem == f"cannot write to {node.root}/state: Input/output error"
        unsynced.clear()
        async with asyncio.timeout(30):
            while seats._wary:  # noqa: ASYNC110 - a thread writes it anew
                await asyncio.sleep(0.01)
        assert len(node.checkpoint.load()) == 2
        made._clock = iter((0.0, QUIET_S)).__next__
        await made.once()
        await made.once()
        await listed(node, 80)
        await node.kubelet.admit(node.pod("b", ask(slices=one(3))))
        assert len(seats) == 3
    finally:
        keeping.cancel()


async def test_what_a_disk_lost_is_written_anew_and_not_only_waited_for_again(unsynced, tmp_path, monkeypatch):
    """After an error the kernel calls pages clean that never got to the disk: waiting again would call them well."""
    monkeypatch.setattr(seats_module, "KEEP_S", 0.01)
    monkeypatch.setattr(seats_module, "AGAIN_S", 0.01)
    kept = Seats(Checkpoint(tmp_path / "seats.json"))
    grant = Grant(PodRef("ns", "pod", PodUid("u1")), "main", ("a",), tuple(one(1)), {})
    await kept.change(put=[Seat("k1", grant, State.COMPLETED)])
    first = (tmp_path / "seats.json").stat().st_ino
    failed = asyncio.Event()
    kept.on_unkept = lambda: (unsynced.clear(), failed.set())
    unsynced.append(errno.EIO)
    keeping = asyncio.create_task(kept.keep())
    try:
        async with asyncio.timeout(30):
            await failed.wait()
            while (tmp_path / "seats.json").stat().st_ino == first:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        keeping.cancel()


async def test_a_disk_that_a_look_found_broken_gets_no_grant_that_kubelet_was_sent_before(make_node, unsynced):
    """It takes a moment until kubelet hears that the cards are withdrawn."""
    node = await make_node()
    unsynced.append(errno.EIO)
    node.parts.seats.distrust()
    with pytest.raises(Rejected, match="Input/output error"):
        await node.kubelet.admit(node.pod("a", ask(slices=one(3))))
    assert len(node.parts.seats) == 0
    assert not [*node.parts.folders.keys()]


async def test_who_suspects_a_disk_is_heard_at_once(rig, monkeypatch):
    """Not after what is between two looks."""
    monkeypatch.setattr(storage, "LOOK_S", 600.0)
    await rig.look()
    looks = len(rig.disk.asked)
    running = asyncio.create_task(rig.storage.run())
    rig.storage.suspect()
    try:
        async with asyncio.timeout(30):
            while len(rig.disk.asked) == looks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
