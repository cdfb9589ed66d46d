"""Clients that mean harm, or are broken: each is sent away, and a well-behaved one beside it notices nothing."""

import asyncio
import os
import random
import shutil
import socket
import sys
from pathlib import Path

import pytest

from hami.agent.broker import porter, server
from hami.agent.broker.allowance import Allowance
from hami.agent.broker.place import TOLD
from hami.agent.broker.session import BURST, HELLO_WITHIN_S, UNREAD_S, End
from hami.wire.broker import Hello, Reason, Refused, Usage, Welcome, encode

from .conftest import HELLO, Stage, connect, descriptors

USAGE = Usage(0, (0,) * 7, 0, 0, 0, 0)


@pytest.fixture
async def victim(stage, monkeypatch):
    """A good client of another container, which must hear of its new limit whatever happens meanwhile."""
    real, witness = porter.peer, porter.witness
    monkeypatch.setattr(porter, "peer", lambda connection: real(connection).__class__(pid=424_242, uid=0))
    monkeypatch.setattr(porter, "witness", lambda _: None)
    stage.grant("good", mem=1000)
    client = await stage.joined("good")
    monkeypatch.setattr(porter, "peer", real)
    monkeypatch.setattr(porter, "witness", witness)
    stage.grant("bad")
    yield client
    stage.grant("good", mem=2000)
    assert (await client.read()).limit_bytes == 2000 << 20


GARBAGE = {
    "nothing like it": b"GET / HTTP/1.1\r\n\r\n",
    "one byte": b"\0",
    "half a hello": encode(HELLO)[:20],
    "a hello and more": encode(HELLO) + b"\0",
    "another version": b"\x02\x00" + encode(HELLO)[2:],
    "a kind nobody knows": encode(HELLO)[:2] + b"\x63\x00" + encode(HELLO)[4:],
    "the broker's own words": encode(Welcome(1, 1, 1)),
    "a forged limit": encode(Refused(Reason.FULL, "go")),
    "usage before hello": encode(USAGE),
    "a large packet": bytes(60_000),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_answered_with_a_reason_and_the_end(stage: Stage, victim, what):
    client = stage.client("bad").send(GARBAGE[what])
    last = await client.read()
    assert isinstance(last, Refused)
    assert last.reason is Reason.PROTOCOL
    assert await client.gone()
    assert stage.broker.ended[End.GARBAGE] == 1


async def test_edits_of_good_packets_never_hurt_the_broker(stage: Stage, victim):
    dice = random.Random(3)
    for _ in range(300):
        packet = bytearray(encode(dice.choice((HELLO, USAGE))))
        for _ in range(dice.randint(0, 5)):
            packet[dice.randrange(len(packet))] = dice.randrange(256)
        client = stage.client("bad")
        client.send(bytes(packet[: dice.choice((len(packet), len(packet), dice.randrange(1, len(packet))))]))
        await stage.settle()
        client.close()
        stage.clients.remove(client)
    await stage.until(lambda: len(list(stage.broker.sessions())) == 1)


async def test_numbers_out_of_bounds_end_the_session_before_anybody_adds_them_up(stage: Stage, victim):
    client = await stage.joined("bad")
    packet = bytearray(encode(USAGE))
    packet[16:24] = (1 << 62).to_bytes(8, "little")
    client.send(bytes(packet))
    assert "held_bytes" in (await client.read()).text


async def test_a_forged_pid_changes_nothing(stage: Stage, victim):
    client = stage.client("bad").send(Hello(pid=1, pid_namespace=2, start_ticks=3, program="init"))
    assert (await client.read()).host_pid == os.getpid()


async def flood(client) -> int:
    """How many packets were taken before the end."""
    for sent in range(100_000):
        try:
            client.send(USAGE)
        except BlockingIOError:
            await asyncio.sleep(0)
        except OSError:
            return sent
        if sent % 64 == 0:
            await asyncio.sleep(0)
    return -1


async def test_a_flood_ends_the_flooding_session(stage: Stage, victim):
    client = await stage.joined("bad")
    sent = await flood(client)
    assert stage.broker.ended[End.FLOOD] == 1
    assert 0 < sent < BURST + 1500  # what fitted into the socket before the end


async def test_a_flood_of_connections_is_bounded_and_costs_others_nothing(stage: Stage, victim):
    before = descriptors()
    crowd = []
    for _ in range(400):
        try:
            crowd.append(connect(stage.root / "bad"))
        except BlockingIOError:
            await asyncio.sleep(0)
    await stage.until(lambda: stage.broker.ended[End.FULL] >= len(crowd) - server.MOST_UNKNOWN)
    assert descriptors() <= before + len(crowd) + 2 * server.MOST_UNKNOWN  # one tells of the process's death
    # The door of a neighbour is its own.
    stage.grant("neighbour")
    await stage.joined("neighbour")
    for each in crowd:
        each.close()
    await stage.until(lambda: sum(len(place.sessions) for place in stage.broker.places) == 2)


async def test_a_container_that_takes_all_descriptors_leaves_as_many_to_the_others(stage: Stage, victim, monkeypatch):
    """And to the rest of the agent its own: kubelet and the API server are served through them, too."""
    monkeypatch.setattr(server, "MOST_UNKNOWN", 1024)
    monkeypatch.setattr(server, "OWN_DESCRIPTORS", 8)
    stage.broker._descriptors = 8 + 40 * server.DESCRIPTORS_EACH
    had = descriptors()
    crowd = [connect(stage.root / "bad") for _ in range(60)]
    await stage.until(lambda: stage.broker.ended[End.FULL] == 40)
    assert descriptors() - had - len(crowd) <= 20 * server.DESCRIPTORS_EACH
    stage.grant("neighbour")
    await stage.joined("neighbour")
    for each in crowd:
        each.close()


async def test_priorities_that_come_and_go_are_told_others_once_a_second_and_in_the_end(stage: Stage):
    """Each neighbour would hear of it a hundred times a second, with a descriptor each time."""
    stage.grant("bad", priority=0)
    stage.grant("low", priority=1)
    low = await stage.joined("low")
    for _ in range(30):
        client = await stage.joined("bad")
        client.socket.close()
        await stage.until(lambda: not any(one.key == "bad" for one in stage.broker.sessions()))
    stage.broker.round()
    heard = 0
    while not low.quiet():
        last = await low.read()
        heard += 1
    assert 2 <= heard <= 5
    assert not last.mixed
    await stage.joined("bad")
    stage.now += 1
    stage.broker.round()
    assert (await low.read()).mixed


async def test_who_connects_again_and_again_is_taken_in_so_often_a_second(stage, victim, monkeypatch):
    """The clock stands still, so all that comes is at once; who came too much waits at the door, and others do not."""
    monkeypatch.setattr(porter, "MOMENT_S", 0.01)
    place = next(place for place in stage.broker.places if place.tenant.key == "bad")
    place.arrivals = Allowance(20, 30, stage.now)
    crowd = [connect(stage.root / "bad") for _ in range(60)]
    for each in crowd:
        each.close()
    await stage.until(lambda: stage.broker.ended.total() >= 30)
    await asyncio.sleep(0.1)  # ten rounds at the door in which no more may be taken in
    assert stage.broker.ended.total() == 30
    stage.now += 1
    await stage.until(lambda: stage.broker.ended.total() == 50)


async def test_what_is_said_of_a_container_that_goes_on_and_on_fills_no_log(stage, victim, caplog):
    for _ in range(60):
        client = stage.client("bad").send(b"nonsense")
        assert await client.gone()
    stage.now += 10
    last = stage.client("bad").send(b"nonsense")
    assert await last.gone()
    said = [one for one in caplog.records if one.message == "client dismissed"]
    assert len(said) == TOLD[1] + 1
    assert vars(said[-1])["untold_before"] == 60 - TOLD[1]


async def test_all_clients_of_a_container_are_read_so_often_a_second(stage, victim, monkeypatch):
    """Each keeps to what one may say; together they are too much, and what is too much waits."""
    monkeypatch.setattr(server, "MOMENT_S", 0.01)
    place = next(place for place in stage.broker.places if place.tenant.key == "bad")
    place.packets = Allowance(10, 20, stage.now)
    client = await stage.joined("bad")
    for number in range(40):
        client.send(Usage(0, (number,) * 7, 0, 0, 0, 0))
    (session,) = [one for one in stage.broker.sessions() if one.key == "bad"]
    await stage.until(lambda: session._packets._left < BURST - 10)
    await asyncio.sleep(0.1)  # ten rounds in which no more may be read
    assert BURST - 20 <= session._packets._left < BURST - 10  # of 41
    stage.now += 1
    await stage.until(lambda: session.heard[0] == stage.now)
    assert stage.broker.ended[End.FLOOD] == 0


CONNECTS = """
import os, socket, sys
place, hello = sys.argv[1], bytes.fromhex(sys.argv[2])
made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
made.connect(place)
made.send(hello)
kept = os.dup(made.fileno())
os.set_inheritable(kept, True)
if os.fork() == 0:
    os.close(1)
    os.read(0, 1)  # another process with the socket, until the test says so
    os._exit(0)
sys.stdin.readline()
"""


async def test_a_process_that_ends_is_gone_though_another_has_its_socket(stage, victim, tmp_path):
    """Whoever came by its pid afterwards would be taken for it."""
    place = tmp_path / "bad/broker/sock"
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONNECTS, str(place), encode(HELLO).hex(), **pipes
    )
    await stage.until(lambda: any(one.key == "bad" for one in stage.broker.sessions()))
    process.kill()
    await stage.until(lambda: not any(one.key == "bad" for one in stage.broker.sessions()))
    assert stage.broker.ended[End.LEFT] == 1


async def test_who_says_nothing_is_sent_away(stage: Stage, victim):
    client = stage.client("bad")
    await stage.settle()
    stage.now += HELLO_WITHIN_S - 1
    stage.broker.round()
    assert client.quiet()
    stage.now += 2
    stage.broker.round()
    assert await client.gone()
    assert stage.broker.ended[End.SILENT] == 1


async def test_who_never_reads_gets_only_the_latest_word_and_is_sent_away_in_the_end(stage: Stage, victim):
    client = stage.client("bad")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.send(HELLO)
    await stage.settle()
    (session,) = [one for one in stage.broker.sessions() if one.key == "bad"]
    for mem in range(3000, 4000):
        stage.grant("bad", mem=mem)
    assert session.waiting
    assert len(session._waiting) == 1
    stage.now += UNREAD_S + 1
    stage.broker.round()
    assert stage.broker.ended[End.DEAF] == 1


async def test_who_reads_late_hears_the_latest_limit(stage: Stage, victim):
    client = stage.client("bad").send(HELLO)
    await stage.settle()
    for mem in range(3000, 4000):
        stage.grant("bad", mem=mem)
    heard = []
    while not heard or heard[-1].limit_bytes != 3999 << 20:
        message = await client.read()
        if not isinstance(message, Welcome):
            heard.append(message)
    assert [one.generation for one in heard] == sorted(one.generation for one in heard)
    await stage.settle()
    assert client.quiet()


async def test_out_of_descriptors_the_door_rests_and_opens_again(stage: Stage, victim, monkeypatch):
    monkeypatch.setattr(porter, "PAUSE_S", 0.05)
    place = next(place for place in stage.broker.places if place.tenant.key == "bad")
    real = place.door

    class Exhausted:
        accepts = 0

        def accept(self):
            self.accepts += 1
            raise OSError(24, "Too many open files")

        def fileno(self):
            return real.socket.fileno()

    shut = Exhausted()
    place.door = real._replace(socket=shut)
    client = stage.client("bad").send(HELLO)
    await stage.until(lambda: shut.accepts)
    await asyncio.sleep(0.03)
    assert shut.accepts == 1
    asyncio.get_running_loop().remove_reader(real.socket.fileno())
    place.door = real
    asyncio.get_running_loop().add_reader(real.socket.fileno(), stage.broker._porter._take_in, place)
    assert isinstance(await client.read(), Welcome)


@pytest.mark.parametrize("watched", [0, 1])
async def test_whom_the_kernel_cannot_watch_is_let_go_and_leaves_nothing_open(
    stage: Stage, victim, monkeypatch, watched: int
):
    """The first descriptor is of the process, the second of its socket."""
    loop, before = asyncio.get_running_loop(), descriptors()
    real, asked = loop.add_reader, []

    def add_reader(fd: int, *args: object) -> None:
        asked.append(fd)
        if len(asked) == watched + 1:
            raise OSError(28, "No space left on device")
        real(fd, *args)

    monkeypatch.setattr(loop, "add_reader", add_reader)
    client = stage.client("bad")
    await stage.settle()
    assert len(asked) == watched + 1
    assert stage.broker.ended[End.FAULT] == 1
    assert all(not place.sessions for place in stage.broker.places if place.tenant.key == "bad")
    client.socket.close()
    assert descriptors() == before
    assert isinstance(await stage.client("bad").send(HELLO).read(), Welcome)


@pytest.mark.parametrize("lost", ["removed", "another's", "its folder removed"])
async def test_a_socket_that_is_gone_is_made_anew_and_who_is_connected_stays(stage: Stage, victim, lost, caplog):
    client = await stage.joined("bad")
    place = stage.root / "bad/broker"
    if lost == "its folder removed":
        shutil.rmtree(place)
    else:
        (place / "sock").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        if lost == "another's":
            other.bind(str(place / "sock"))
    before = descriptors()
    for _ in range(3):
        stage.broker.round()
    again = connect(stage.root / "bad")
    again.send(encode(HELLO))
    await stage.until(lambda: stage.broker.ended[End.REPLACED] == 1)  # the same process, through the new socket
    assert await client.gone()
    assert descriptors() == before + 1
    again.close()
    assert [one.message for one in caplog.records] == ["a container's socket is gone or another's: made anew"]


async def test_a_folder_that_cannot_be_looked_into_ends_nothing_but_its_own_door(
    stage: Stage, victim, monkeypatch, caplog
):
    real = Path.is_dir

    def is_dir(path: Path) -> bool:
        if path.name == "sick":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    stage.grant("sick")
    for _ in range(3):
        stage.broker.round()
    assert [one.message for one in caplog.records] == ["no socket for a container"]


async def test_on_a_full_disk_a_container_has_no_door_others_do_and_it_is_told_once(stage: Stage, monkeypatch, caplog):
    def full(folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(porter, "listen", full)
        stage.grant("late")
        for _ in range(5):
            stage.broker.round()
    assert [one.message for one in caplog.records] == ["no socket for a container"]
    stage.broker.round()
    await stage.joined("late")
