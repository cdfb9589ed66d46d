"""What an agent finds after another one: its checkpoint, half done or damaged or gone, and what kubelet keeps."""

import pytest

from hami.agent.grants import recover
from hami.agent.grants.checkpoint import State
from hami.agent.grants.house import House
from hami.sim.kubelet import NotStarted, Rejected

from .conftest import ask, one, uuid
from .test_resize import record


async def test_an_agent_that_died_before_it_answered_starts_again_on_a_full_disk(node, monkeypatch):
    """It had only begun; to undo that nothing need be written."""
    first, pod = node.pod("first", ask(slices=one(1))), node.pod("a", ask(slices=one(2)))
    await node.kubelet.admit(first)
    await node.run(first)
    node.parts.folders.write = lambda *_: (_ for _ in ()).throw(SystemError("killed"))
    with pytest.raises(Rejected):
        await node.kubelet.admit(pod)

    def full(seats, **how):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(node.checkpoint, "save", full)
        await node.restart_agent()
        assert [seat.grant.pod.name for seat in node.parts.seats] == ["first"]
        assert (await node.run(first)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)
    await node.kubelet.admit(pod)
    assert [seat.state for seat in node.checkpoint.load()] == [State.COMPLETED] * 2


async def test_a_damaged_checkpoint_that_cannot_be_set_aside_does_not_keep_the_agent_from_starting(
    node, monkeypatch, caplog
):
    """The disk is read-only."""
    node.checkpoint.path.parent.mkdir(exist_ok=True)
    node.checkpoint.path.write_bytes(b"{")
    monkeypatch.setattr(
        node.checkpoint, "set_aside", lambda: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
    )
    await node.restart_agent()
    (told,) = [one for one in caplog.records if one.message == "checkpoint is damaged"]
    assert told.kept == "no copy of it: [Errno 30] Read-only file system"


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version":1,"checksum":"0","seats":[]}', b"\xff" * 100])
async def test_a_damaged_checkpoint_is_rebuilt_from_kubelet_and_the_records(node, damage):
    pods = [node.pod(f"p{i}", ask(slices=one(i)), inits=[ask("warm", slices=one(i))]) for i in range(3)]
    for pod in pods:
        await node.kubelet.admit(pod)
    before = {seat.key: seat.grant for seat in node.parts.seats}
    node.checkpoint.path.write_bytes(damage)
    await node.restart_agent()
    assert len(node.parts.seats) == 0
    assert node.checkpoint.path.with_name("checkpoint.json.damaged").exists()
    assert await recover.rebuild(node.parts) == 6
    assert {seat.key: seat.grant for seat in node.parts.seats} == before
    for pod in pods:
        await node.run(pod, "warm")
        await node.run(pod)


async def test_with_the_checkpoint_lost_a_container_is_not_started_on_another_record_than_it_was_given(node):
    pod, moved = (node.pod(name, ask(slices=one(1))) for name in ("a", "moved"))
    for each in (pod, moved):
        await node.kubelet.admit(each)
    node.checkpoint.path.write_bytes(b"{")
    # The author has raised its own record meanwhile.
    node.update(pod, **{"hami.io/vgpu-devices-allocated": f"{uuid(1)},NVIDIA,40000,100:;"})
    node.update(moved, **{"hami.io/vgpu-devices-allocated": f"{uuid(2)},NVIDIA,1000,10:;"})
    await node.restart_agent()
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 1000 core_percent 10"
    with pytest.raises(NotStarted, match="what it was given is lost"):
        await node.run(moved)


async def test_with_the_checkpoint_lost_a_resized_container_keeps_its_seat_its_folder_and_its_size(node):
    """kubelet keeps the size of its start; the folder has its broker's door. Its size is told again."""
    pod = node.pod("a", ask(mem=1000, slices=one(1, 1000)))
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    node.pods.complete()
    node.update(pod, **record(one(1, 3000)))
    await House(node.parts).tidy()
    node.checkpoint.path.unlink()
    await node.restart_agent()
    node.pods.complete()
    node.told.notes.clear()
    await House(node.parts).tidy()
    assert [seat.grant.slices[0].mem_mib for seat in node.parts.seats] == [3000]
    assert node.policy(answer)[uuid(1)].startswith("mem_mib 3000 ")
    assert node.told.notes == [("a", "SliceResized", f"container main has 3000 MiB and 10 % of {uuid(1)} from now on")]
    assert node.policy(await node.run(pod))[uuid(1)].startswith("mem_mib 3000 ")


async def test_with_the_checkpoint_lost_a_record_that_asks_too_much_gives_what_the_container_started_with(node):
    pods = [node.pod(name, ask(mem=1000, slices=one(1, 1000))) for name in ("a", "b")]
    for pod in pods:
        await node.kubelet.admit(pod)
    answers = [await node.run(pod) for pod in pods]
    node.checkpoint.path.unlink()
    node.update(pods[0], **record(one(1, 40000)))
    await node.restart_agent()
    node.pods.complete()
    node.told.notes.clear()
    await House(node.parts).tidy()
    assert [node.policy(each)[uuid(1)].split()[1] for each in answers] == ["1000", "1000"]
    assert [(name, reason) for name, reason, _ in node.told.notes] == [("a", "ResizeRefused")]


async def test_folders_stay_while_what_kubelet_keeps_cannot_be_read(node):
    """Nothing is known of running containers then: their folders are not nobody's."""
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    node.checkpoint.path.unlink()
    await node.restart_agent()
    node.pods.complete()
    keeper, file = House(node.parts), node.root / "dp/kubelet_internal_checkpoint"
    text = file.read_bytes()
    file.write_bytes(b"{")
    await keeper.tidy()
    assert node.policy(answer)[uuid(1)].startswith("mem_mib 1000 ")
    file.write_bytes(text)
    await keeper.tidy()
    assert len(node.parts.seats) == 1
    assert node.policy(answer)[uuid(1)].startswith("mem_mib 1000 ")
