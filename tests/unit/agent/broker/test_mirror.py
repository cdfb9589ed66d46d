"""HAMi-core's region as its monitor reads it: decoded by the layout that HAMi's documents give."""

import os
import struct
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.wire.region_layout import Region

from hami.agent.broker import usage
from hami.agent.broker.door import Peer
from hami.agent.broker.mirror import Mirror
from hami.agent.broker.session import Session
from hami.agent.broker.tenants import Tenant
from hami.model.ask import PodRef
from hami.wire import region as wire
from hami.wire.broker import Refused, Usage, encode
from hami.wire.policy import CardLimit, CorePolicy, LibraryPolicy
from hami.wire.region import RegionCard, RegionProcess, RegionUse

from .conftest import CARD, HELLO, OTHER, UID
from .looking import look

MIB = 1 << 20


WALL = 1_700_000_000


def mirror(stage, tmp_path):
    seen, _ = look(stage, tmp_path)
    return Mirror(stage.broker, seen, tmp_path / "containers", clock=lambda: stage.now, wall=lambda: WALL)


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


async def test_a_process_that_gives_itself_a_pid_that_cannot_be_is_dismissed_and_does_not_end_the_agent(
    stage, tmp_path
):
    stage.grant("a")
    made = mirror(stage, tmp_path)
    await stage.joined("a")
    stranger = stage.client("a").send(replace(HELLO, pid=2**31))
    assert isinstance(await stranger.read(), Refused)
    made.round()
    assert read(tmp_path).proc_num == 1


NUMBERS = st.integers(0, 2**63 - 1)
WORDS = st.builds(
    Usage,
    card=st.integers(0, 15),
    held_bytes=st.tuples(*[st.integers(0, 2**47)] * 7),
    busy_ns=NUMBERS,
    launched_ns=NUMBERS,
    waited_ns=NUMBERS,
    refused=st.integers(0, 2**64 - 1),
)


@given(
    hello=st.builds(replace, st.just(HELLO), pid=st.integers(0, 2**31 - 1), start_ticks=st.integers(0, 2**64 - 1)),
    words=st.lists(st.tuples(WORDS, st.floats(0, 40)), max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_whatever_a_client_may_say_can_be_shown(hello, words):
    """It is a tenant's word: the broker takes it, so nothing that is made of it may fail."""
    session = Session("a", Peer(5, 0), lambda *_: True, 1000.0)
    session.receive(encode(hello), 1000.0)
    now = 1000.0
    for word, pause in words:
        now += pause
        session.receive(encode(word), now)
    place = SimpleNamespace(
        tenant=Tenant("a", PodRef("default", "a", UID.format(0)), "main"),
        cards=tuple(CardLimit(f"GPU-{index}", 8000, 30) for index in range(16)),
        known=lambda: iter([session]),
        file=SimpleNamespace(policy=LibraryPolicy("a/main", (CardLimit("GPU-0", 8000, 30),))),
    )
    seen = SimpleNamespace(seen_percent={}, seen_bytes={})
    made = Mirror(None, seen, Path("/none"), clock=lambda: now, wall=lambda: WALL)._region(place)
    assert len(made.head() + made.slots() + made.tail()) == 2_008_952
    place.file.policy = LibraryPolicy("a/main", place.cards)
    for _, labels, value in usage._of_place(place, seen, now):
        assert labels
        assert value >= 0


# As HAMi's documents have it for its monitor: the layout "v1", little-endian, natural alignment, by hand.

REGION = {
    "magic": (0, "<i"), "major": (4, "<i"), "minor": (8, "<i"), "sm_init_flag": (12, "<i"), "owner": (16, "<Q"),
    "devices": (56, "<Q"), "uuids": (64, "1536s"), "limit": (1600, "<16Q"), "sm_limit": (1728, "<16Q"),
    "count": (2_008_896, "<i"), "switch": (2_008_900, "<i"), "recent": (2_008_904, "<i"), "priority": (2_008_908, "<i"),
    "last": (2_008_912, "<q"),
}  # fmt: skip
SLOTS_AT, SLOT_BYTES = 1856, 1960
SLOT = {
    "pid": (0, "<i"),
    "host_pid": (4, "<i"),
    "shown": (1032, "<16Q"),
    "status": (1928, "<i"),
    "spare": (1936, "<3Q"),
}
MEMORY_AT, MEMORY_BYTES = 8, 64  # context, module, buffer, offset, total, three spare
TIME_AT, TIME_BYTES = 1160, 48  # decode, encode, sm, three spare


def test_each_field_is_where_the_monitor_reads_it(tmp_path):
    """Every field has a value of its own, so that none is taken for another."""
    cards = tuple(RegionCard(f"GPU-{index:036d}", 1000 + index, 20 + index) for index in range(16))
    processes = tuple(
        RegionProcess(
            10_000 + one,
            20_000 + one,
            tuple(RegionUse(10**6 + 16 * one + c, 2 * 10**6 + c, 3 * 10**6 + c, (one + c) % 100) for c in range(16)),
        )
        for one in (*range(1024), 1024)  # and one more than there is room for
    )
    made = wire.Region(cards, processes, priority=0, active=True, last_kernel_s=WALL)
    text = made.head() + made.slots() + made.tail()
    assert len(text) == 2_008_952

    def at(fields, name, base=0):
        offset, form = fields[name]
        return struct.unpack_from(form, text, base + offset)

    alone = (
        "magic",
        "major",
        "minor",
        "sm_init_flag",
        "owner",
        "devices",
        "count",
        "switch",
        "recent",
        "priority",
        "last",
    )
    values = (19920718, 1, 2, 0, 0, 16, 1024, 1, 2, 0, WALL)
    assert tuple(at(REGION, name)[0] for name in alone) == values
    uuids = at(REGION, "uuids")[0]
    assert [uuids[96 * c : 96 * c + 96].rstrip(b"\0").decode() for c in range(16)] == [card.uuid for card in cards]
    assert at(REGION, "limit") == tuple(1000 + c for c in range(16))
    assert at(REGION, "sm_limit") == tuple(20 + c for c in range(16))
    for one in (0, 1, 511, 1023):
        base = SLOTS_AT + one * SLOT_BYTES
        assert (at(SLOT, "pid", base), at(SLOT, "host_pid", base)) == ((10_000 + one,), (20_000 + one,))
        assert (at(SLOT, "status", base), at(SLOT, "spare", base)) == ((1,), (0, 0, 0))
        assert at(SLOT, "shown", base) == (0,) * 16
        for c in (0, 7, 15):
            context, module, buffer = 10**6 + 16 * one + c, 2 * 10**6 + c, 3 * 10**6 + c
            held = struct.unpack_from("<8Q", text, base + MEMORY_AT + c * MEMORY_BYTES)
            assert held == (context, module, buffer, 0, context + module + buffer, 0, 0, 0)
            assert struct.unpack_from("<6Q", text, base + TIME_AT + c * TIME_BYTES) == (0, 0, (one + c) % 100, 0, 0, 0)


async def test_time_that_nothing_is_charged_for_is_shown_as_nvml_has_it(stage, tmp_path):
    """Alone on its card under policy default: HAMi's own library has NVML's word for everybody."""
    stage.grant("a", cores=30)
    seen, _ = look(stage, tmp_path)
    made = Mirror(stage.broker, seen, tmp_path / "containers", clock=lambda: stage.now, wall=lambda: WALL)
    for _ in range(2):
        await stage.joined("a")
    seen.seen_percent = {("a", CARD): 73.4}
    made.round()
    region = read(tmp_path)
    assert sum(slot.device_util[0].sm for slot in region.procs[: region.proc_num]) == 73
    stage.grant("a", cores=30, core_policy=CorePolicy.FORCE)  # now its launches are charged, and it has none
    made.round()
    assert [slot.device_util[0].sm for slot in read(tmp_path).procs[:2]] == [0, 0]
