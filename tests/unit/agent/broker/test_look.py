"""The look from outside: who is on a card without having registered, who holds too much, and what is done about it."""

import asyncio
import os
import time

import pytest

from hami.agent.broker import usage
from hami.agent.broker.lawful import QUIET
from hami.agent.broker.look import GRACE_S, SLACK_BYTES, Look
from hami.agent.broker.overtime import LOOKS, Overtime
from hami.agent.broker.process import pod_uid
from hami.agent.broker.strangers import DESCRIBE_WITHIN_S, PATIENCE
from hami.observe.exposition import Sheet
from hami.wire.broker import Seen, Usage
from hami.wire.policy import CorePolicy

from .conftest import CARD, OTHER, UID
from .looking import CGROUPS, MIB, Card, Inline, Told, look, process, told_to_hold


@pytest.mark.parametrize("form", CGROUPS)
def test_the_pod_of_a_process_is_read_from_its_cgroup(tmp_path, form):
    process(tmp_path, 7, UID.format(3), form)
    process(tmp_path, 8)
    assert pod_uid(7, tmp_path / "proc") == UID.format(3)
    assert pod_uid(8, tmp_path / "proc") is None
    assert pod_uid(9, tmp_path / "proc") is None


async def test_a_process_of_a_slice_that_did_not_register_is_reported_once(stage, tmp_path):
    stage.grant("a")
    process(tmp_path, 7, UID.format(0))
    made, told = look(stage, tmp_path)
    for _ in range(PATIENCE - 1):
        made._judge({CARD: {7: 100}})
    assert (told.reasons, made.unregistered) == ([], 1)
    for _ in range(5):
        made._judge({CARD: {7: 100}})
    assert told.reasons == [("pod-a", "UnregisteredProcess")]
    made._judge({CARD: {}})
    assert made.unregistered == 0


MAPPED = {
    "a musl program": "7f00 r-xp 00000000 08:01 77 /usr/lib/x86_64-linux-musl/libc.so\n",
    "a statically linked program": "0040 r-xp 00000000 08:01 77 /opt/trainer\n7ffc rw-p 0 0 0 [stack]\n",
    "which runs without the library": "7f00 r-xp 00000000 08:01 77 /lib/x86_64-linux-gnu/libc.so.6\n",
    "found a way past it": "7f00 r-xp 0 08:01 7 /lib/libc-2.31.so\n7f01 r-xp 0 08:01 7 /usr/local/vgpu/libvgpu.so\n",
}


@pytest.mark.parametrize("kind", MAPPED)
async def test_the_report_says_what_the_process_is(stage, tmp_path, kind):
    stage.grant("a")
    process(tmp_path, 7, UID.format(0))
    (tmp_path / "proc/7/comm").write_text("trainer\n")
    (tmp_path / "proc/7/maps").write_text(MAPPED[kind])
    made, told = look(stage, tmp_path)
    made._nvml, made._worker = Card(7), Inline()
    for _ in range(PATIENCE):
        await made.once()
    (text,) = told.texts
    assert "process 7 (trainer, " in text
    assert kind in text


async def test_a_process_that_cannot_be_looked_into_is_reported_all_the_same(stage, tmp_path):
    """As one that keeps a lock of its own for ever."""
    stage.grant("a")
    process(tmp_path, 7, UID.format(0))
    os.mkfifo(tmp_path / "proc/7/comm")
    made, told = look(stage, tmp_path)
    made._nvml, made._worker = Card(7), Inline()
    begun = asyncio.get_running_loop().time()
    for _ in range(PATIENCE):
        await made.once()
    assert len(told.texts) == 1
    assert asyncio.get_running_loop().time() - begun < DESCRIBE_WITHIN_S + 20  # it would be for ever
    (tmp_path / "proc/7/comm").open("w").close()  # lets its reader go


async def test_many_that_are_slow_to_look_into_do_not_put_off_the_report(stage, tmp_path, monkeypatch):
    stage.grant("a")
    pids = range(7, 27)
    for pid in pids:
        process(tmp_path, pid, UID.format(0))
    made, told = look(stage, tmp_path)
    made._nvml, made._worker = Card(), Inline()
    made._nvml.processes = lambda _: [type("Shown", (), {"pid": pid, "mem_bytes": None}) for pid in pids]
    looked: list[int] = []
    monkeypatch.setattr("hami.agent.broker.strangers.described", lambda *_: looked.append(1) or time.sleep(0.5) or "")
    for _ in range(PATIENCE):
        await made.once()
    assert len(told.texts) == len(pids)
    assert 0 < len(looked) <= DESCRIBE_WITHIN_S / 0.5 + 1


async def test_registered_processes_strangers_of_the_host_and_cards_of_others_are_no_concern(stage, tmp_path):
    stage.grant("a")
    await stage.joined("a")
    process(tmp_path, 8)  # the host's own
    process(tmp_path, 9, UID.format(0))  # of this pod, on a card that it has as a whole
    made, told = look(stage, tmp_path, "stop")
    for _ in range(PATIENCE + 1):
        made._judge({CARD: {os.getpid(): 100, 8: 5}, OTHER: {9: 5}})
    assert (told.reasons, made.unregistered, made.stopped) == ([], 0, 0)


async def test_after_a_start_processes_get_time_to_register_again(stage, tmp_path):
    stage.grant("a")
    process(tmp_path, 7, UID.format(0))
    made, told = look(stage, tmp_path)
    stage.now = 1000.0 + GRACE_S - 1
    for _ in range(10):
        made._judge({CARD: {7: 100}})
    assert told.reasons == []
    stage.now += 2
    for _ in range(PATIENCE):
        made._judge({CARD: {7: 100}})
    assert told.reasons == [("pod-a", "UnregisteredProcess")]


async def test_it_is_stopped_where_that_is_wanted_and_only_it(stage, tmp_path):
    stage.grant("a")
    made, told = look(stage, tmp_path, "stop")
    guilty, neighbour = [await asyncio.create_subprocess_exec("sleep", "60") for _ in range(2)]
    process(tmp_path, guilty.pid, UID.format(0))
    process(tmp_path, neighbour.pid)
    for _ in range(PATIENCE):
        made._judge({CARD: {guilty.pid: 100, neighbour.pid: 100}})
    assert await asyncio.wait_for(guilty.wait(), 30) == -9
    assert neighbour.returncode is None
    neighbour.kill()
    await neighbour.wait()
    assert (made.stopped, told.reasons) == (1, [("pod-a", "UnregisteredProcess")])


async def test_a_slice_that_holds_more_than_its_limit_is_reported(stage, tmp_path):
    stage.grant("a", mem=1000)
    await stage.joined("a")
    made, told = look(stage, tmp_path)
    for held in (1000 * MIB + SLACK_BYTES, 1000 * MIB + SLACK_BYTES + 1):
        for _ in range(PATIENCE + 1):
            made._judge({CARD: {os.getpid(): held}})
    assert (told.reasons, made.exceeded) == ([("pod-a", "SliceExceeded")], 1)


@pytest.mark.parametrize(
    ("given", "unknown", "ends"),
    [
        (100, 2000, True),  # taken past the library
        (2000, 100, False),  # given by the library, before the limit was lowered
        (990, 70, False),  # a little more than the limit: what modules take cannot be refused beforehand
        (950, 120, True),
    ],
)
async def test_memory_past_the_library_ends_its_process_where_that_is_wanted(stage, tmp_path, given, unknown, ends):
    stage.grant("a", mem=3000)
    client = await stage.joined("a")
    client.send(Usage(0, (given * MIB, 0, 0, 0, 0, 0, unknown * MIB), 0, 0, 0, 0))
    await stage.settle()
    made, told = look(stage, tmp_path, exceeded="stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    made._judge({CARD: {os.getpid(): (given + unknown) * MIB}})
    stage.grant("a", mem=1000)
    for _ in range(PATIENCE - 1):
        made._judge({CARD: {os.getpid(): (given + unknown) * MIB}})
    assert stopped == []
    made._judge({CARD: {os.getpid(): (given + unknown) * MIB}})
    assert stopped == [os.getpid()] * ends
    assert (("pod-a", "SliceExceeded") in told.reasons) == (given + unknown > 1064)


async def test_a_library_that_gave_more_than_any_limit_there_was_has_been_lied_to(stage, tmp_path):
    """Somebody wrote into the ledger that less is held. A limit that was lowered excuses what it was, and only until
    less is held than it is now."""
    stage.grant("a", mem=1000)
    client = await stage.joined("a")
    made, told = look(stage, tmp_path, exceeded="stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)

    async def hold(mib, times=PATIENCE):
        await told_to_hold(stage, client, mib)
        for _ in range(times):
            made._judge({CARD: {os.getpid(): mib * MIB}})

    await hold(900)
    stage.grant("a", mem=500)
    await hold(990)
    assert (stopped, told.reasons) == ([], [("pod-a", "SliceExceeded")])
    await hold(400, QUIET)
    await hold(990)
    assert stopped == [os.getpid()]


async def test_what_libraries_gave_before_our_start_is_right(stage, tmp_path):
    """It may have been given under a limit that was lowered since; more than that may not."""
    stage.grant("a", mem=500)
    client = await stage.joined("a")
    made, _ = look(stage, tmp_path, exceeded="stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    await told_to_hold(stage, client, 990)
    stage.now = 1000.0 + GRACE_S - 1
    made._judge({CARD: {os.getpid(): 990 * MIB}})
    stage.now += 2
    for _ in range(2 * PATIENCE):
        made._judge({CARD: {os.getpid(): 990 * MIB}})
    assert stopped == []
    await told_to_hold(stage, client, 1100)
    made._judge({CARD: {os.getpid(): 1100 * MIB}})
    assert stopped == [os.getpid()]


async def test_nobody_is_ended_for_what_he_has_not_yet_told_after_a_start(stage, tmp_path):
    stage.grant("a", mem=1000)
    await stage.joined("a")
    made, _ = look(stage, tmp_path, exceeded="stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    stage.now = 1000.0 + GRACE_S - 1
    for _ in range(PATIENCE + 1):
        made._judge({CARD: {os.getpid(): 5000 * MIB}})
    assert stopped == []
    stage.now += 2
    made._judge({CARD: {os.getpid(): 5000 * MIB}})
    assert stopped == [os.getpid()]


async def test_each_process_hears_what_nvml_shows_of_it_when_that_changes(stage, tmp_path):
    stage.grant("a")
    client = await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {os.getpid(): 500, 77: 1, 78: 1}})
    assert await client.read() == Seen(card=0, own_bytes=500, others=2)
    made._judge({CARD: {os.getpid(): 500, 77: 1, 78: 1}})
    made._judge({})  # the card does not answer: nothing is known, nothing is said
    await stage.settle()
    assert client.quiet()
    made._judge({CARD: {}})
    assert await client.read() == Seen(card=0, own_bytes=-1, others=0)


async def test_a_card_that_does_not_answer_does_not_keep_the_others_from_being_looked_at(stage, tmp_path):
    stage.grant("a", cards=(CARD, OTHER))
    client = await stage.joined("a", cards=2)
    made = Look(stage.broker, Card(), Inline(), tell=Told(), proc=tmp_path)
    await made.once()
    assert await client.read() == Seen(card=0, own_bytes=-1, others=0)
    await stage.settle()
    assert client.quiet()


async def test_the_metrics_have_hamis_names_and_count_what_was_told(stage, tmp_path):
    stage.grant("a", mem=8000, cores=30)
    stage.grant("idle")
    client = await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {os.getpid(): 900}})
    client.send(Usage(0, (10, 20, 30, 40, 50, 60, 70), 0, int((stage.now - 5) * 1e9), 2_000_000_000, 3))
    await stage.settle()
    stage.now += 1
    client.send(Usage(0, (10, 20, 30, 40, 50, 60, 70), 250_000_000, int((stage.now - 5) * 1e9), 2_000_000_000, 3))
    await stage.settle()
    sheet = Sheet(usage.FAMILIES)
    sheet.put("usage", -1, usage.samples(stage.broker, made, stage.now))
    lines = sheet.render().decode().splitlines()
    who = f'{{zone="vGPU",namespace="default",pod="pod-a",container="main",vdevice_index="0",device_uuid="{CARD}"}}'
    for name, value in {
        "hami_vgpu_memory_used_bytes": 280,
        "hami_container_device_memory_bytes": 280,
        "hami_vgpu_memory_limit_bytes": 8000 * MIB,
        "hami_vgpu_memory_context_bytes": 60,
        "hami_vgpu_memory_module_bytes": 70,
        "hami_vgpu_memory_buffer_bytes": 150,
        "hami_vgpu_memory_shown_bytes": 900,
        "hami_vgpu_core_limit_ratio": 30,
        "hami_container_device_utilization_ratio": 25,
        "hami_container_last_kernel_elapsed_seconds": 5,
        "hami_vgpu_throttled_seconds_total": 2,
        "hami_vgpu_memory_refused_total": 3,
    }.items():
        assert f"{name}{who} {value}" in lines
    assert "hami_broker_clients 1" in lines
    assert not any("pod-idle" in line for line in lines)  # nothing of a container before its first cuInit
    assert f"hami_vgpu_time_charged{who} 1" in lines


def told_time(stage, made, seconds=0):
    """Utilisation and whether it was charged, as the metrics say; None: they say nothing."""
    found = {family.name: value for family, _, value in usage.samples(stage.broker, made, stage.now + seconds)}
    return found.get("hami_container_device_utilization_ratio"), found.get("hami_vgpu_time_charged")


async def charged(stage, client, busy_ns=250_000_000):
    """A second in which it was charged so much."""
    for total in (0, busy_ns):
        client.send(Usage(0, (0,) * 7, total, 0, 0, 0))
        await stage.settle()
        stage.now += 1 if total == 0 else 0


async def test_time_that_was_not_charged_is_nvmls_word_of_the_containers_own_processes(stage, tmp_path):
    stage.grant("a", cores=30)
    client = await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {os.getpid(): 1}}, {CARD: {os.getpid(): 62.5, 77: 30}})
    assert told_time(stage, made) == (62.5, 0)
    await charged(stage, client)
    assert told_time(stage, made) == (25, 1)
    assert told_time(stage, made, 3) == (62.5, 0)  # it has told nothing for long: idle, or charged no more
    made._judge({CARD: {os.getpid(): 1}}, {CARD: {}})
    assert told_time(stage, made, 3) == (0, 0)


async def test_where_all_time_is_charged_nvmls_word_is_not_shown(stage, tmp_path):
    stage.grant("a", cores=30, core_policy=CorePolicy.FORCE)
    await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {os.getpid(): 1}}, {CARD: {os.getpid(): 62.5}})
    assert told_time(stage, made) == (0, 1)


async def test_who_has_far_more_time_than_his_limit_for_half_a_minute_is_reported_once(stage, tmp_path):
    stage.grant("a", cores=30, core_policy=CorePolicy.FORCE)
    await stage.joined("a")
    made, told = look(stage, tmp_path)
    for _ in range(LOOKS - 1):
        made._judge({}, {CARD: {os.getpid(): 97.0, 77: 3.0}})
    assert (told.reasons, made.overtime) == ([], 0)
    for _ in range(LOOKS):
        made._judge({}, {CARD: {os.getpid(): 97.0, 77: 3.0}})
    assert (told.reasons, made.overtime, made.stopped) == ([("pod-a", "SliceExceeded")], 1, 0)
    assert told.texts == [f"container main has 97 % of the time of {CARD}, its limit is 30"]


@pytest.mark.parametrize("policy", list(CorePolicy))
async def test_samples_that_swing_about_the_limit_and_those_who_may_use_idle_time_are_not_reported(
    stage, tmp_path, policy
):
    stage.grant("a", cores=30, core_policy=policy)
    await stage.joined("a")
    made, told = look(stage, tmp_path)
    for number in range(3 * LOOKS):
        percent = 97.0 if policy is not CorePolicy.FORCE else 90.0 if number % 3 == 0 else 25.0
        made._judge({}, {CARD: {os.getpid(): percent}})
    assert (told.reasons, made.overtime) == ([], 0)


def test_a_limit_that_was_lowered_is_judged_from_then_on():
    overtime = Overtime()
    for percent, limit in [(90.0, 90)] * LOOKS + [(30.0, 30)] * (LOOKS - 1):
        assert overtime.look({("a", CARD): (percent, limit)}) == []
    assert overtime.over == {}


@pytest.mark.parametrize(
    ("cores", "policy"), [(0, CorePolicy.FORCE), (30, CorePolicy.DEFAULT), (30, CorePolicy.DISABLE)]
)
async def test_where_time_may_not_be_charged_each_look_asks_nvml(stage, tmp_path, cores, policy):
    stage.grant("a", cores=cores, core_policy=policy)
    card = Card()
    made = Look(stage.broker, card, Inline(), tell=Told(), proc=tmp_path)
    await made.once()
    assert card.asked_loads == []  # nobody there yet
    await stage.joined("a")
    await made.once()
    assert card.asked_loads == [CARD]
    assert told_time(stage, made) == (50, 0)  # the mean of its samples


async def test_what_nvml_cannot_tell_is_not_guessed(stage, tmp_path):
    stage.grant("a", cores=0)
    await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {os.getpid(): 1}}, {CARD: {os.getpid(): 62.5}})
    made._judge({CARD: {os.getpid(): 1}}, {})
    assert told_time(stage, made) == (None, None)
