"""The checkpoint file, the seats on it and the view of kubelet they are compared with."""

import asyncio
import errno
import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from hami.agent.grants import seats as seats_module
from hami.agent.grants.checkpoint import Checkpoint, Seat, State, Unreadable
from hami.agent.grants.seats import Seats
from hami.agent.kubelet import podresources
from hami.agent.kubelet.podresources import KubeletFile, KubeletView, PodResources
from hami.agent.kubelet.sight import Sight, look
from hami.model.ask import PodRef
from hami.model.errors import Unavailable
from hami.model.grant import Grant
from hami.model.ids import PodUid
from hami.sim.kubelet import SimKubelet

from .conftest import RESOURCE, one


def seat(key="k1", uid="u1", ids=("a",), state=State.COMPLETED) -> Seat:
    grant = Grant(PodRef("ns", "pod", PodUid(uid)), "main", ids, tuple(one(1)), {"A": "b"})
    return Seat(key, grant, state)


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint = Checkpoint(tmp_path / "state/allocations.json")
    assert checkpoint.load() == ()
    checkpoint.save((seat("k1"), seat("k2", state=State.STARTED)))
    assert checkpoint.load() == (seat("k1"), seat("k2", state=State.STARTED))
    assert (tmp_path / "state/allocations.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_the_states_are_named_as_in_the_file_of_nvidias_driver(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.json")
    checkpoint.save((seat("k1"), seat("k2", state=State.STARTED)))
    states = [one["state"] for one in msgspec.json.decode(checkpoint.path.read_bytes())["seats"]]
    assert states == ["PrepareCompleted", "PrepareStarted"]


def test_what_an_agent_before_resizes_were_marked_has_saved_is_read_and_one_reads_ours(tmp_path):
    """An agent is upgraded, or put back, under containers that run."""

    class Before(msgspec.Struct):
        key: str
        grant: Grant
        state: State
        verified: bool = False
        broken: str = ""

    checkpoint = Checkpoint(tmp_path / "c.json")
    ours = replace(seat(), verified=True)
    checkpoint.save((Before(ours.key, ours.grant, ours.state, verified=True),))
    assert b"unsettled" not in checkpoint.path.read_bytes()
    assert checkpoint.load() == (ours,)
    checkpoint.save((replace(ours, unsettled=True),))
    saved = msgspec.json.decode(checkpoint.path.read_bytes(), type=dict[str, msgspec.Raw])["seats"]
    assert msgspec.json.decode(saved, type=list[Before]) == [Before(ours.key, ours.grant, ours.state, verified=True)]


def test_one_changed_letter_is_found(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.json")
    checkpoint.save((seat(),))
    text = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(text.replace(b'"mem_mib":1000', b'"mem_mib":9000'))
    with pytest.raises(Unreadable, match="checksum"):
        checkpoint.load()


def test_a_save_that_fails_leaves_the_old_state_and_no_litter(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "c.json")
    checkpoint.save((seat("old"),))

    def full(fd, mode):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fchmod", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save((seat("new"),))
    assert checkpoint.load() == (seat("old"),)
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


async def test_a_change_is_visible_only_when_it_is_on_disk(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.json")
    seats = Seats(checkpoint)
    await seats.change(put=[seat("k1"), seat("k2", uid="u2")])
    assert checkpoint.load() == tuple(seats)

    def full(_, **how):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save = full
    with pytest.raises(OSError, match="No space left"):
        await seats.change(put=[seat("k3")], drop=["k1"])
    assert {one.key for one in seats} == {"k1", "k2"}


async def test_a_change_that_nobody_waits_for_any_more_still_keeps_memory_and_disk_alike(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.json")
    seats = Seats(checkpoint)
    going = asyncio.create_task(seats.change(put=[seat("k1")]))
    await asyncio.sleep(0)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert tuple(seats) == checkpoint.load()


# what kubelet says


@pytest.fixture
async def kubelet():
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as folder:
        async with SimKubelet(Path(folder) / "dp", Path(folder) / "pr/kubelet.sock") as running:
            yield running


@pytest.fixture
async def resources(kubelet):
    client = PodResources(str(kubelet.resources_socket), RESOURCE)
    yield client
    await client.close()


async def test_callers_at_the_same_time_share_a_request_that_starts_after_them(kubelet, resources):
    calls, answer, arrived, goes_on = [], kubelet._list, asyncio.Event(), asyncio.Event()

    async def counted(request, context):
        calls.append(1)
        arrived.set()
        await goes_on.wait()
        return await answer(request, context)

    await kubelet.stop()
    kubelet._list = counted
    await kubelet.start()
    first = asyncio.create_task(resources.view(30.0))
    await arrived.wait()  # the first is on its way: what comes now must see what happens from now on
    later = [asyncio.create_task(resources.view(30.0)) for _ in range(20)]
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.gather(first, *later)
    assert len(calls) == 2


async def test_kubelets_rate_limit_is_waited_out(kubelet, resources):
    kubelet.answers_resources = False
    asyncio.get_running_loop().call_later(0.2, setattr, kubelet, "answers_resources", True)
    assert await resources.view(30.0) == KubeletView({})


async def test_no_answer_is_said_in_time(kubelet, resources):
    await kubelet.stop()
    with pytest.raises(Unavailable, match="pod resources"):
        await resources.view(0.2)
    await kubelet.start()
    assert await resources.view(30.0) == KubeletView({})


def test_owners_are_found_by_any_of_the_ids():
    view = KubeletView({("n", "a"): {"x": frozenset("12")}, ("n", "b"): {"y": frozenset("3")}, ("n", "c"): {}})
    assert view.owners(frozenset("14")) == {(("n", "a"), "x")}
    assert view.owners(frozenset("4")) == set()
    assert ("n", "c") in view.pods


@pytest.mark.parametrize("text", [b"", b"{}", b'{"Data":{"PodDeviceEntries":null}}', b'{"Data":[]}', b"\xff"])
def test_kubelets_file_that_cannot_be_read_is_not_known_rather_than_empty(tmp_path, text):
    assert KubeletFile(str(tmp_path), RESOURCE).read() is None
    (tmp_path / "kubelet_internal_checkpoint").write_bytes(text)
    read = KubeletFile(str(tmp_path), RESOURCE).read()
    assert read == (() if text.startswith((b"{}", b'{"Data":{')) else None)


async def test_a_file_that_lags_behind_kubelet_is_not_believed(tmp_path):
    class Kubelet:
        async def view(self, wait):
            return KubeletView({("n", "a"): {"main": frozenset("1")}})

    stale = (podresources.Kept("u", "main", frozenset("2"), b""),)
    fresh = (podresources.Kept("u", "main", frozenset("1"), b""), *stale)
    assert (await look(Kubelet(), lambda: stale, 1.0)).kept is None
    assert (await look(Kubelet(), lambda: fresh, 1.0)).kept == fresh
    reads = iter([stale, stale, fresh])
    assert (await look(Kubelet(), lambda: next(reads), 1.0)).kept == fresh
    elsewhere = await look(Kubelet(), lambda: stale, 1.0, frozenset("2"))
    assert elsewhere.kept == stale, "of ids that it has right, the file may be late about others"
    assert (await look(Kubelet(), lambda: stale, 1.0, frozenset("1"))).kept is None
    assert (await look(Kubelet(), lambda: None, 1.0)) == Sight(await Kubelet().view(1.0), None)


async def test_nobody_waits_for_the_disk_and_soon_all_is_on_it(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)
    monkeypatch.setattr(seats_module, "KEEP_S", 0.02)
    checkpoint = Checkpoint(tmp_path / "seats.json")
    kept = Seats(checkpoint)
    await kept.enter(seat(state=State.STARTED), lambda: None)
    await kept.change(put=[seat("other")])
    assert waits == []
    assert len(checkpoint.load()) == 2
    keeping = asyncio.create_task(kept.keep())
    async with asyncio.timeout(30):
        while len(waits) < 2:  # noqa: ASYNC110 - a thread does it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    keeping.cancel()
    assert len(waits) == 2, "the file, and the name it has in its folder; once for both changes"
