"""The look from outside where something is odd: pids used again, pods that are gone, clocks put back, no answer."""

import os
from pathlib import Path

import pytest

from hami.agent.broker import load, usage
from hami.agent.broker.evader import described
from hami.agent.broker.look import GRACE_S, Look
from hami.agent.broker.process import began
from hami.agent.broker.strangers import PATIENCE
from hami.model.errors import Unavailable
from hami.vendors.nvidia.nvml import ProcessLoad

from .conftest import CARD, HELLO, OTHER, UID
from .looking import MIB, Card, Inline, Told, look, process, told_to_hold


def metrics(stage, made, seconds=0.0):
    return {family.name: value for family, _, value in usage.samples(stage.broker, made, stage.now + seconds)}


async def test_a_pid_used_again_is_another_process_that_has_time_to_register(stage, tmp_path):
    stage.grant("a")
    made, told = look(stage, tmp_path, "stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    for turn in range(3):
        process(tmp_path, 7, UID.format(0), began=1000 + turn)
        for _ in range(PATIENCE - 1):
            made._judge({CARD: {7: 100}})
    assert (told.reasons, stopped, made.unregistered) == ([], [], 1)
    made._judge({CARD: {7: 100}})
    assert (told.reasons, stopped) == ([("pod-a", "UnregisteredProcess")], [7])


def test_when_a_process_began_is_read_behind_its_name_whatever_that_holds(tmp_path):
    process(tmp_path, 7, UID.format(0), began=4711)
    assert began(7, tmp_path / "proc") == 4711
    assert began(8, tmp_path / "proc") == 0
    assert began(os.getpid()) > 0


async def test_a_process_that_outlives_its_pod_is_seen_and_not_ended(stage, tmp_path, caplog):
    """Its container was removed, or its pod by force: the card is given to others, who wonder about the memory."""
    stage.grant("a")
    stage.grant("gone")
    process(tmp_path, 7, UID.format(1))
    made, told = look(stage, tmp_path, "stop")
    await stage.joined("gone")
    del stage.tenants["gone"]
    stage.broker.round()
    for _ in range(2 * PATIENCE):
        made._judge({CARD: {7: 100}})
    assert (made.orphaned, made.unregistered, made.stopped, told.reasons) == (1, 0, 0, [])
    (line,) = [one for one in caplog.records if one.message == "a process of a pod without a slice uses a shared card"]
    assert (vars(line)["pod_uid"], vars(line)["pid"], vars(line)["card"]) == (UID.format(1), 7, CARD)
    assert metrics(stage, made)["hami_broker_orphaned_processes"] == 1
    made._judge({CARD: {}})
    assert made.orphaned == 0


@pytest.mark.parametrize("whose", [0, 1])
async def test_processes_that_come_and_go_fill_no_log_and_are_all_told_as_events(stage, tmp_path, caplog, whose):
    """The recorder combines events; the log has ten lines, then one in ten seconds. The second pod has no slice."""
    stage.grant("a")
    made, told = look(stage, tmp_path)
    for turn in range(20):
        pids = range(100 * turn + 1, 100 * turn + 4)
        for pid in pids:
            process(tmp_path, pid, UID.format(whose))
        for _ in range(PATIENCE):
            made._judge({CARD: dict.fromkeys(pids, 1)})
    assert len(told.reasons) == (60 if whose == 0 else 0)
    assert len(caplog.records) == 10


async def test_the_name_that_a_process_gives_itself_writes_no_lines_of_its_own(tmp_path):
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "comm").write_bytes(b"a\nERROR\x1b[2J\xff\n")
    (folder / "maps").write_text("")
    assert described(7, tmp_path) == "a?ERROR?[2J\ufffd, a statically linked program"


async def test_memory_that_nvml_does_not_show_is_absent_and_not_nothing(stage, tmp_path):
    stage.grant("a")
    await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {os.getpid(): 900}})
    assert metrics(stage, made)["hami_vgpu_memory_shown_bytes"] == 900
    made._judge({CARD: {}})
    assert metrics(stage, made)["hami_vgpu_memory_shown_bytes"] == 0  # it told, and has none
    for shown in ({CARD: {os.getpid(): -1}}, {}, {OTHER: {os.getpid(): 5}}):
        made._judge({CARD: {os.getpid(): 900}})
        made._judge(shown)
        assert "hami_vgpu_memory_shown_bytes" not in metrics(stage, made)


async def test_without_the_hosts_pids_memory_shown_is_absent(stage, tmp_path, monkeypatch):
    from hami.agent.broker import porter

    real = porter.peer
    monkeypatch.setattr(porter, "peer", lambda connection: real(connection).__class__(pid=0, uid=0))
    stage.grant("a")
    await stage.joined("a")
    made, _ = look(stage, tmp_path)
    made._judge({CARD: {7: 900}})
    assert "hami_vgpu_memory_shown_bytes" not in metrics(stage, made)


@pytest.mark.parametrize("looks_between", [0, 1, 15])
async def test_who_connects_again_under_a_lowered_limit_is_not_ended_for_what_it_has_not_yet_told(
    stage, tmp_path, looks_between
):
    """A program that closes all its descriptors: its library is back in up to 16 s, and tells a second after."""
    stage.grant("a", mem=1000)
    client = await stage.joined("a")
    await told_to_hold(stage, client, 900)
    made, told = look(stage, tmp_path, exceeded="stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)

    def looks(times):
        for _ in range(times):
            stage.now += 1
            made._judge({CARD: {os.getpid(): 900 * MIB}})

    looks(1)
    stage.grant("a", mem=500)
    looks(PATIENCE)
    client.socket.close()
    await stage.until(lambda: not any(stage.broker.sessions()))
    looks(looks_between)
    again = stage.client("a").send(HELLO)
    await again.several(2)
    looks(1)
    await told_to_hold(stage, again, 900)
    looks(2 * PATIENCE)
    assert (set(told.reasons), stopped) == ({("pod-a", "SliceExceeded")}, [])


async def test_who_registers_and_tells_nothing_of_what_it_holds_is_ended_after_all(stage, tmp_path):
    stage.grant("a", mem=500)
    made, _ = look(stage, tmp_path, exceeded="stop")
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    await stage.joined("a")
    for _ in range(60):
        stage.now += 1
        made._judge({CARD: {os.getpid(): 900 * MIB}})
    assert set(stopped) == {os.getpid()}


class Hung:
    async def run(self, call, timeout):  # noqa: ASYNC109
        raise Unavailable("the driver has not answered")


async def test_cards_that_cannot_be_looked_at_leave_no_old_figures_and_a_growing_age(stage, tmp_path):
    stage.grant("a", cores=0)
    await stage.joined("a")
    made = Look(stage.broker, Card(), Inline(), tell=Told(), proc=tmp_path, clock=lambda: stage.now)
    made._nvml.processes = lambda _: [type("Shown", (), {"pid": os.getpid(), "mem_bytes": 900})]
    await made.once()
    fresh = metrics(stage, made)
    assert fresh["hami_vgpu_memory_shown_bytes"] == 900
    assert fresh["hami_broker_look_age_seconds"] == 0
    made._worker = Hung()
    stage.now += 12
    await made.once()
    stale = metrics(stage, made)
    assert not stale.keys() & {"hami_vgpu_memory_shown_bytes", "hami_container_device_utilization_ratio"}
    assert stale["hami_broker_look_age_seconds"] == 12


@pytest.mark.parametrize(
    ("put_by", "had"),
    [(0, 220 / 3), (-3600, 20.0), (3600, 20.0)],  # seconds that the wall clock was put by just before the last sample
)
def test_a_wall_clock_that_was_put_shows_no_time_of_before(put_by, had):
    """A driver keeps samples of some minutes, by the wall clock of then."""
    now = 1_700_000_000.0
    before = [(now - put_by - age, 100) for age in (90.0, 30.0, 1.5, 1.0)]

    class Driver:
        def process_loads(self, _, since_us):
            samples = [*before, (now - 0.1, 20)]
            return tuple(ProcessLoad(7, int(at * 1e6), percent, 0) for at, percent in samples if at * 1e6 > since_us)

    assert load.read(Driver(), None, clock=lambda: now)[7] == pytest.approx(had)


def test_the_wall_clock_decides_nothing_but_which_samples_are_of_now():
    """It may be put at any time. What HAMi's monitor is told carries a date, and NVML's samples do."""
    folder = Path(load.__file__).parent
    assert {file.name for file in folder.glob("*.py") if "time.time" in file.read_text()} == {"load.py", "mirror.py"}


@pytest.mark.parametrize("silent", ["the driver", "the card"])
async def test_a_limit_lowered_before_our_start_is_learnt_of_while_nvml_says_nothing(stage, tmp_path, silent):
    """For our first half minute; then its memory is shown again. Who was given it by his library is not ended."""
    stage.grant("a", mem=500)
    told = Told()
    made = Look(stage.broker, Card(), Inline(), tell=told, exceeded="stop", proc=tmp_path, clock=lambda: stage.now)
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    client = await stage.joined("a")
    await told_to_hold(stage, client, 900)

    def lost(_):
        raise Unavailable("the card is lost")

    made._nvml.processes = lost
    if silent == "the driver":
        made._worker = Hung()
    while stage.now - stage.broker.began < GRACE_S + 3:
        await made.once()
        stage.now += 11  # as long as a driver that hangs is waited for
    made._worker = Inline()
    made._nvml.processes = lambda _: [type("Shown", (), {"pid": os.getpid(), "mem_bytes": 900 * MIB})]
    for _ in range(2 * PATIENCE):
        stage.now += 1
        await made.once()
    assert (set(told.reasons), stopped) == ({("pod-a", "SliceExceeded")}, [])
    await told_to_hold(stage, client, 1200)  # and more than that was never right
    made._nvml.processes = lambda _: [type("Shown", (), {"pid": os.getpid(), "mem_bytes": 1200 * MIB})]
    stage.now += 1
    await made.once()
    assert stopped == [os.getpid()]


@pytest.mark.parametrize(("old", "ended"), [(True, False), (False, True)])
async def test_a_process_of_before_our_start_that_wakes_late_is_not_ended_for_a_limit_lowered_before_it(
    stage, tmp_path, old, ended
):
    """Stopped, or on a host far too busy, it tells what it holds a minute after all others. One begun since may not."""
    stage.grant("a", mem=500)
    process(tmp_path, os.getpid(), UID.format(0), began=900 if old else 1100)
    told = Told()
    made = Look(
        stage.broker, Card(), Inline(), tell=told, exceeded="stop", proc=tmp_path / "proc", since=1000,
        clock=lambda: stage.now,
    )  # fmt: skip
    stopped = []
    made._stop = lambda pid, _: stopped.append(pid)
    stage.now += GRACE_S + 30
    made._judge({CARD: {}})
    client = await stage.joined("a")
    await told_to_hold(stage, client, 900)
    for _ in range(2 * PATIENCE):
        stage.now += 1
        made._judge({CARD: {os.getpid(): 900 * MIB}})
    assert bool(stopped) is ended
    stopped.clear()
    client.socket.close()  # connecting anew it has no such first word again
    again = stage.client("a").send(HELLO)
    await again.several(2)
    await told_to_hold(stage, again, 1500)
    for _ in range(2 * PATIENCE):
        stage.now += 1
        made._judge({CARD: {os.getpid(): 1500 * MIB}})
    assert stopped
