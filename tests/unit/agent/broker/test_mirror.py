"""HAMi-core's region as its monitor reads it: decoded here by the layout that HAMi's documents give, with ctypes."""

import ctypes as c
import os

from hami.agent.broker.mirror import Mirror
from hami.wire.broker import Usage

from .conftest import CARD, OTHER, UID

MIB = 1 << 20


class Memory(c.Structure):
    _fields_ = [(name, c.c_uint64) for name in ("context", "module", "buffer", "offset", "total", "a", "b", "c")]


class Time(c.Structure):
    _fields_ = [(name, c.c_uint64) for name in ("decode", "encode", "sm", "a", "b", "c")]


class Slot(c.Structure):
    _fields_ = (
        ("pid", c.c_int32),
        ("host_pid", c.c_int32),
        ("used", Memory * 16),
        ("monitor_used", c.c_uint64 * 16),
        ("device_util", Time * 16),
        ("status", c.c_int32),
        ("sequence", c.c_uint64),
        ("spare", c.c_uint64 * 2),
    )


class Region(c.Structure):
    _fields_ = (
        ("magic", c.c_int32),
        ("major", c.c_int32),
        ("minor", c.c_int32),
        ("sm_init_flag", c.c_int32),
        ("owner_pid", c.c_uint64),
        ("semaphore", c.c_char * 32),
        ("device_num", c.c_uint64),
        ("uuids", (c.c_char * 96) * 16),
        ("limit", c.c_uint64 * 16),
        ("sm_limit", c.c_uint64 * 16),
        ("procs", Slot * 1024),
        ("proc_num", c.c_int32),
        ("utilization_switch", c.c_int32),
        ("recent_kernel", c.c_int32),
        ("priority", c.c_int32),
        ("last_kernel_time", c.c_int64),
        ("semaphore_after", c.c_char * 32),
    )


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


def test_the_layout_is_the_documented_one():
    assert (c.sizeof(Slot), c.sizeof(Region)) == (1960, 2_008_952)
    assert (Region.procs.offset, Region.proc_num.offset, Slot.device_util.offset) == (1856, 2_008_896, 1160)


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


async def test_a_folder_that_cannot_be_written_is_told_once(stage, tmp_path, caplog):
    stage.grant("a")
    await stage.joined("a")
    (tmp_path / "containers").touch()
    made = mirror(stage, tmp_path)
    for _ in range(3):
        made.round()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
