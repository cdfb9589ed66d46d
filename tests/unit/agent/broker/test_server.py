"""The broker with well-behaved clients: they register, hear of changes, leave, and come back after a restart."""

import mmap
import os
import stat

import pytest

from hami.agent.broker.session import End
from hami.agent.broker.turns import MAGIC, SIZE
from hami.wire.broker import UNLIMITED, Limit, Usage, Welcome
from hami.wire.policy import CorePolicy

from .conftest import CARD, HELLO, OTHER, descriptors

MIB = 1 << 20


async def test_a_process_registers_and_hears_its_host_pid_and_its_limits(stage):
    stage.grant("a", mem=8000, cores=30, core_policy=CorePolicy.FORCE, priority=0)
    client = stage.client("a").send(HELLO)
    welcome, limit = await client.several(2)
    assert welcome == Welcome(host_pid=os.getpid(), cards=1, session=1)
    assert limit == Limit(
        card=0,
        generation=1,
        limit_bytes=8000 * MIB,
        core_percent=30,
        core_policy=CorePolicy.FORCE,
        priority=0,
        uuid=CARD,
        member=0,
        tenant=0,
        last=True,
    )


async def test_every_card_has_its_limit_and_the_last_says_so(stage):
    stage.grant("a", mem=None, cores=0, cards=(CARD, OTHER))
    client = stage.client("a").send(HELLO)
    _, first, second = await client.several(3)
    assert (first.uuid, first.last, second.uuid, second.last) == (CARD, False, OTHER, True)
    assert (first.limit_bytes, first.core_percent) == (UNLIMITED, 100)


async def test_who_it_is_follows_from_the_door_and_not_from_what_it_says(stage):
    stage.grant("small", mem=100)
    stage.grant("large", mem=9000)
    client = stage.client("small").send(HELLO)  # whatever its words: this is the small one's socket
    _, limit = await client.several(2)
    assert limit.limit_bytes == 100 * MIB


async def test_a_changed_policy_is_told_to_every_process_of_that_container_and_to_nobody_else(stage):
    stage.grant("a", mem=4000)
    stage.grant("b", mem=4000)
    first, second, other = await stage.joined("a"), await stage.joined_again("a"), await stage.joined("b")
    stage.grant("a", mem=6000, cores=50)
    for client in (first, second):
        limit = await client.read()
        assert (limit.generation, limit.limit_bytes, limit.core_percent) == (2, 6000 * MIB, 50)
    await stage.settle()
    assert other.quiet()


async def test_a_policy_that_cannot_be_used_changes_nothing(stage):
    folder = stage.grant("a", mem=4000)
    client = await stage.joined("a")
    (folder / "policy").write_text("version 1\nrubbish\n")
    stage.broker.round()
    await stage.settle()
    assert client.quiet()
    stage.grant("a", mem=5000)
    assert (await client.read()).limit_bytes == 5000 * MIB


async def test_what_holds_now_lies_in_the_mounted_folder_for_those_who_only_look(stage):
    folder = stage.grant("a", mem=4000)
    posted = folder / "broker/policy"
    assert posted.read_text() == (folder / "policy").read_text()
    stage.grant("a", mem=6000)
    assert "mem_mib 6000" in posted.read_text()
    (folder / "policy").write_text("version 1\nrubbish\n")
    stage.broker.round()
    assert "mem_mib 6000" in posted.read_text()
    assert sorted(path.name for path in posted.parent.iterdir()) == ["policy", "sock"]


async def test_end_of_file_is_the_notice_of_death(stage):
    stage.grant("a")
    client = await stage.joined("a")
    assert len(list(stage.broker.sessions())) == 1
    client.socket.close()
    await stage.until(lambda: not list(stage.broker.sessions()))
    assert stage.broker.ended[End.LEFT] == 1


async def test_an_end_with_packets_unread_is_an_end_and_no_fault(stage):
    stage.grant("a")
    client = stage.client("a")
    client.send(HELLO)
    await stage.until(lambda: list(stage.broker.sessions()))
    client.socket.close()
    await stage.until(lambda: not list(stage.broker.sessions()))
    assert (stage.broker.ended[End.LEFT], stage.broker.ended[End.FAULT]) == (1, 0)


async def test_what_a_process_uses_is_known_and_how_fast_it_uses_it(stage):
    stage.grant("a")
    client = await stage.joined("a")
    stage.now += 1
    client.send(Usage(0, (1, 2, 3, 4, 5, 6, 7), 0, 0, 0, 0))
    await stage.settle()
    stage.now += 1
    client.send(Usage(0, (10, 2, 3, 4, 5, 6, 7), 300_000_000, 5, 6, 7))
    await stage.settle()
    (session,) = stage.broker.sessions()
    assert session.usage[0].held_bytes[0] == 10
    assert session.rates[0] == pytest.approx(0.3)


async def test_the_last_word_counts_however_soon_it_came_after_the_one_before(stage):
    """Both wait in its socket while the agent is busy; then the process rests, and says nothing more."""
    stage.grant("a")
    client = await stage.joined("a")
    client.send(Usage(0, (9,) * 7, 0, 0, 0, 0), Usage(0, (0,) * 7, 500_000_000, 1, 2, 3))
    await stage.settle()
    (session,) = stage.broker.sessions()
    assert (session.usage[0].held_bytes, session.usage[0].refused) == ((0,) * 7, 3)
    stage.now += 2
    client.send(Usage(0, (0,) * 7, 600_000_000, 1, 2, 3))
    await stage.settle()
    assert session.rates[0] == pytest.approx(0.3)  # since the word that a rate was last reckoned from


async def test_the_page_of_turns_comes_with_the_limit_and_cannot_be_cut(stage):
    stage.grant("a")
    stage.grant("b")
    one, two = await stage.joined("a"), await stage.joined("b")
    (first,), (second,) = one.descriptors, two.descriptors
    assert os.fstat(first).st_ino == os.fstat(second).st_ino
    page, same = mmap.mmap(first, SIZE), mmap.mmap(second, SIZE)
    assert int.from_bytes(page[:4], "little") == MAGIC
    page[4096] = 7
    assert same[4096] == 7
    for cut in (0, 100, SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(first, cut)


async def test_places_on_the_page_are_given_back_and_used_again(stage):
    stage.grant("a")
    stage.grant("b")
    first = stage.client("a").send(HELLO)
    assert (await first.several(2))[1].member == 0
    second = stage.client("b").send(HELLO)
    limit = (await second.several(2))[1]
    assert (limit.member, limit.tenant) == (1, 1)
    first.socket.close()
    await stage.until(lambda: len(list(stage.broker.sessions())) == 1)
    third = stage.client("b").send(HELLO)  # the same process again: its older session goes
    limit = (await third.several(2))[1]
    assert (limit.member, limit.tenant) == (0, 0)
    assert stage.broker.ended[End.REPLACED] == 1


async def test_mixed_priorities_are_told_to_those_who_are_there_already(stage):
    stage.grant("low", priority=1)
    stage.grant("high", priority=0)
    low = await stage.joined("low")
    high = stage.client("high").send(HELLO)
    assert (await high.several(2))[1].mixed
    assert (await low.read()).mixed
    high.socket.close()
    assert not (await low.read()).mixed


async def test_who_comes_and_goes_is_no_news_to_tenants_of_other_cards(stage):
    stage.grant("low", priority=1)
    stage.grant("high", priority=0, cards=(OTHER,))
    low = await stage.joined("low")
    high = await stage.joined("high")
    high.socket.close()
    await stage.until(lambda: stage.broker.ended[End.LEFT])
    assert low.quiet()


async def test_a_grant_that_goes_takes_its_door_and_sessions_along(stage):
    folder = stage.grant("a")
    client = await stage.joined("a")
    del stage.tenants["a"]
    stage.broker.round()
    assert await client.gone()
    with pytest.raises(ConnectionRefusedError):
        stage.client("a")
    assert stage.broker.places == ()
    assert folder.exists()


async def test_any_user_may_connect_and_a_long_path_is_no_hindrance(stage):
    key = "k" * 120
    folder = stage.grant(key)
    mode = (folder / "broker/sock").stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o666)
    await stage.joined(key)


async def test_a_restarted_broker_takes_everybody_in_again_and_leaks_nothing(stage):
    stage.grant("a")
    counts = []
    for _ in range(20):
        client = await stage.joined("a")
        counts.append(descriptors())
        stage.broker.close()
        assert await client.gone()
        with pytest.raises(ConnectionRefusedError):
            stage.client("a")
        client.close()
        stage.clients.clear()
        stage.broker = stage.build()
        stage.broker.round()
    assert len(set(counts)) == 1


@pytest.fixture(autouse=True)
def several_processes(stage, monkeypatch):
    """Sessions of one process replace one another; tests that want two say so."""

    async def joined_again(key):
        from hami.agent.broker import porter

        real, witness = porter.peer, porter.witness
        monkeypatch.setattr(porter, "peer", lambda connection: real(connection).__class__(pid=999_999, uid=0))
        monkeypatch.setattr(porter, "witness", lambda _: None)
        try:
            return await stage.joined(key)
        finally:
            monkeypatch.setattr(porter, "peer", real)
            monkeypatch.setattr(porter, "witness", witness)

    stage.joined_again = joined_again
