"""HAMi-core's region as its monitor reads it: decoded by the layout that HAMi's documents give."""

import ctypes
import os

from tests.unit.wire.region_layout import Region, Slot

from hami.agent.broker.mirror import Mirror
from hami.wire.broker import Usage

from .conftest import CARD, OTHER, UID

MIB = 1 << 20


WALL = 1_700_000_000


def mirror(stage, tmp_path):
    return Mirror(stage.broker, tmp_path / "containers", clock=lambda: stage.now, wall=lambda: WALL)


def read(tmp_path, number=0):
    """As the monitor does: the one name that ends in .cache, its size, its first word."""
    (name,) = list((tmp_path / "containers" / f"{UID.format(number)}_main").iterdir())
    text = name.read_bytes()
    assert name.suffix == ".cache"
    assert len(text) == 2_008_952 + 1
    return Region.from_buffer_copy(text)


async def test_the_monitor_finds_each_containers_limits_and_what_its_processes_use(stage, tmp_path):
    stage.grant("a", mem=8000, cores=30, cards=(CARD, OTHER), priority=0)
    made = mirror(stage, tmp_path)
    made.round()
    assert not (tmp_path / "containers").exists()  # as with HAMi, before the first cuInit
    client = await stage.joined("a", cards=2)
    for busy in (0, 250_000_000):
        stage.now += 1
        client.send(Usage(1, (10, 20, 30, 40, 50, 60, 70), busy, int((stage.now - 2) * 1e9), 0, 0))
        await stage.settle()
    made.round()
    region = read(tmp_path)
    assert (region.magic, region.major, region.minor, region.device_num) == (19920718, 1, 2, 2)
    assert [uuid.value.decode() for uuid in region.uuids][:3] == [CARD, OTHER, ""]
    assert (list(region.limit)[:3], list(region.sm_limit)[:3]) == ([8000 * MIB, 8000 * MIB, 0], [30, 30, 0])
    assert (region.proc_num, region.priority, region.utilization_switch, region.recent_kernel) == (1, 0, 1, 2)
    assert region.last_kernel_time == WALL - 2
    slot = region.procs[0]
    assert (slot.pid, slot.host_pid, slot.status) == (7, os.getpid(), 1)
    held = slot.used[1]
    assert (held.context, held.module, held.buffer, held.total) == (60, 70, 150, 280)
    assert (slot.used[0].total, slot.device_util[1].sm, region.procs[1].status) == (0, 25, 0)


async def test_a_resize_a_death_and_a_silent_second_show_and_the_file_stays_the_same_one(stage, tmp_path):
    stage.grant("a", mem=8000)
    client = await stage.joined("a")
    made = mirror(stage, tmp_path)
    client.send(Usage(0, (5,) * 7, 0, int(stage.now * 1e9), 0, 0))
    await stage.settle()
    made.round()
    path = tmp_path / "containers" / f"{UID.format(0)}_main" / "mirror.cache"
    before = path.stat().st_ino
    assert (read(tmp_path).proc_num, read(tmp_path).recent_kernel) == (1, 2)
    client.socket.close()
    await stage.until(lambda: not any(True for _ in stage.broker.sessions()))
    stage.grant("a", mem=4000)
    made.round()
    region = read(tmp_path)
    assert (region.proc_num, region.limit[0], region.procs[0].status) == (0, 4000 * MIB, 0)
    assert (region.procs[0].used[0].total, region.recent_kernel) == (0, 0)
    assert path.stat().st_ino == before


async def test_what_the_monitor_or_anybody_writes_there_is_never_heeded(stage, tmp_path):
    stage.grant("a", mem=8000)
    await stage.joined("a")
    made = mirror(stage, tmp_path)
    made.round()
    path = tmp_path / "containers" / f"{UID.format(0)}_main" / "mirror.cache"
    path.write_bytes(b"\xff" * 2_008_953)
    made.round()
    assert read(tmp_path).limit[0] == 8000 * MIB
    assert stage.broker.places[0].cards[0].mem_mib == 8000
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    made.round()
    assert not (tmp_path / "elsewhere").exists()


async def test_containers_that_are_gone_leave_nothing_and_what_others_put_there_stays(stage, tmp_path):
    stage.grant("a")
    await stage.joined("a")
    made = mirror(stage, tmp_path)
    made.round()
    others = tmp_path / "containers" / "somebody_else"
    others.mkdir()
    (others / "x.cache").touch()
    stage.tenants.clear()
    stage.broker.round()
    made.round()
    assert [one.name for one in (tmp_path / "containers").iterdir()] == ["somebody_else"]
    stage.grant("a")  # a container of that name whose first process has not come
    made.round()
    assert [one.name for one in (tmp_path / "containers").iterdir()] == ["somebody_else"]


async def test_a_place_that_is_no_folder_does_not_end_the_agent(stage, tmp_path):
    (tmp_path / "containers").touch()
    stage.grant("a")
    await stage.joined("a")
    mirror(stage, tmp_path).round()
    assert (tmp_path / "containers").read_bytes() == b""


async def test_a_folder_that_cannot_be_written_is_told_once(stage, tmp_path, caplog):
    stage.grant("a")
    await stage.joined("a")
    (tmp_path / "containers").touch()
    made = mirror(stage, tmp_path)
    for _ in range(3):
        made.round()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


async def test_a_container_without_limits_and_without_launches_is_idle_and_may_use_all(stage, tmp_path):
    stage.grant("a", mem=None, cores=0)
    client = await stage.joined("a")
    made = mirror(stage, tmp_path)
    client.send(Usage(0, (0,) * 7, 0, 0, 0, 0))
    await stage.settle()
    made.round()
    region = read(tmp_path)
    assert (region.limit[0], region.sm_limit[0], region.priority) == (0, 100, 1)
    assert (region.recent_kernel, region.last_kernel_time, region.procs[0].device_util[0].sm) == (0, 0, 0)


async def test_activity_and_time_end_with_the_last_launch_and_the_last_word(stage, tmp_path):
    stage.grant("a", cards=(CARD, OTHER))
    client = await stage.joined("a", cards=2)
    made = mirror(stage, tmp_path)
    for card, launched in ((0, stage.now - 3), (1, stage.now + 2)):
        for busy in (0, 5_000_000_000):  # more than there was: of two clocks
            stage.now += 1
            client.send(Usage(card, (0,) * 7, busy, int(launched * 1e9), 0, 0))
            await stage.settle()
    made.round()  # the last launch, on the second card, is 2 s ago
    assert (read(tmp_path).recent_kernel, read(tmp_path).last_kernel_time) == (2, WALL - 2)
    assert [read(tmp_path).procs[0].device_util[card].sm for card in (0, 1, 2)] == [100, 100, 0]
    stage.now += 1
    made.round()
    assert [read(tmp_path).procs[0].device_util[card].sm for card in (0, 1)] == [0, 100]
    stage.now += 2
    made.round()  # 5 s after the launch
    assert (read(tmp_path).recent_kernel, read(tmp_path).procs[0].device_util[1].sm) == (0, 0)


async def test_a_folder_that_fails_again_is_told_again(stage, tmp_path, caplog):
    stage.grant("a")
    await stage.joined("a")
    made, root = mirror(stage, tmp_path), tmp_path / "containers"
    for _ in range(2):
        root.touch()
        made.round()
        root.unlink()
        made.round()
        (root / f"{UID.format(0)}_main" / "mirror.cache").unlink()
        (root / f"{UID.format(0)}_main").rmdir()
        root.rmdir()
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [(record.folder, "File exists" in record.why or "Not a dir" in record.why) for record in told] == [
        (str(root / f"{UID.format(0)}_main"), True)
    ] * 2
    assert "HAMi's monitor" in told[0].message


class MonitorSlot(ctypes.Structure):
    """As HAMi's vGPUmonitor declares it for itself (pkg/monitor/nvidia/v1), not as HAMi-core does."""

    _fields_ = (
        ("pid", ctypes.c_int32),
        ("host_pid", ctypes.c_int32),
        ("used", ctypes.c_uint64 * 8 * 16),
        ("monitor_used", ctypes.c_uint64 * 16),
        ("device_util", ctypes.c_uint64 * 6 * 16),
        ("status", ctypes.c_int32),
        ("unused", ctypes.c_uint64 * 3),
    )


class MonitorRegion(ctypes.Structure):
    _fields_ = (
        ("magic", ctypes.c_int32),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("sm_init_flag", ctypes.c_int32),
        ("owner_pid", ctypes.c_uint32),
        ("semaphore", ctypes.c_uint8 * 32),
        ("device_num", ctypes.c_uint64),
        ("uuids", ctypes.c_uint8 * 96 * 16),
        ("limit", ctypes.c_uint64 * 16),
        ("sm_limit", ctypes.c_uint64 * 16),
        ("procs", MonitorSlot * 1024),
        ("proc_num", ctypes.c_int32),
        ("utilization_switch", ctypes.c_int32),
        ("recent_kernel", ctypes.c_int32),
        ("priority", ctypes.c_int32),
        ("last_kernel_time", ctypes.c_int64),
        ("unused", ctypes.c_uint64 * 4),
    )


def test_the_file_is_as_hamis_monitor_declares_it():
    """It leaves other room for two fields that it does not read: what it reads is in the same places."""

    def places(structure):
        return {name: getattr(structure, name).offset for name, _ in structure._fields_}

    for theirs, ours in ((MonitorRegion, Region), (MonitorSlot, Slot)):
        assert ctypes.sizeof(theirs) == ctypes.sizeof(ours)
        known = places(ours)
        read = {name: at for name, at in places(theirs).items() if name not in ("semaphore", "unused")}
        assert read == {name: known[name] for name in read}
