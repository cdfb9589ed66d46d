"""What is lost at once (kubelet's checkpoint, ours, the folder of ledgers) costs no container its grant, and grants
nothing twice."""

import asyncio
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from hami.agent.bound import AgentStatus
from hami.agent.broker.tenants import of_seats
from hami.agent.cards.inventory import Inventory
from hami.agent.files import replace_file
from hami.agent.grants import house as house_module
from hami.agent.grants import recover
from hami.agent.grants.house import House
from hami.agent.grants.policy import has_broker, ledger_of
from hami.sim.kubelet import Rejected
from hami.wire import annotations as keys
from hami.wire.objects import ContainerState, ContainerStatus, RunningState

from .conftest import RESOURCE, ask, card, one, uuid
from .test_resize import record

EMPTY = b'{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":0}'
BIG = {"mem": 30_000, "cores": 10}


def big(card: int):
    return ask(slices=one(card, 30_000), **BIG)


def runs(node, pod):
    """As kubelet reports a pod whose container runs."""
    node.api.version += 1
    state = ContainerStatus("main", ContainerState(running=RunningState()))
    metadata = replace(
        pod.metadata,
        resource_version=str(node.api.version),
        annotations={**pod.metadata.annotations, keys.BIND_PHASE: keys.PHASE_SUCCESS},
    )
    made = replace(pod, metadata=metadata, status=AgentStatus(phase="Running", container_statuses=[state]))
    node.api.pods[pod.metadata.uid] = made
    node.pods.put(made)
    return made


async def started(node, name, container):
    pod = node.pod(name, container)
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    return runs(node, pod), answer


async def kubelet_forgets(node, file=EMPTY):
    """Its file is lost, and it starts anew: its pods run on, and it does not know which devices they have."""
    await node.kubelet.stop()
    path = node.root / "dp/kubelet_internal_checkpoint"
    if file is None:
        path.unlink()
    else:
        path.write_bytes(file)
    await node.kubelet.start()
    await node.kubelet.registered(RESOURCE)


async def agent_starts(node, *, forgets=False, ledgers=""):
    if forgets:
        node.checkpoint.path.unlink()
    node.settings = replace(node.settings, ledger_dir=ledgers)
    await node.restart_agent()
    node.pods.complete()
    await House(node.parts).tidy()


async def refuses_what_is_taken(node, card):
    """A record of what another has already: past the scheduler, which knows better."""
    with pytest.raises(Rejected, match=r"6\d000 would be promised"):
        await node.kubelet.admit(node.pod("forged", big(card)))


@pytest.mark.parametrize("before", ["", "before"])
@pytest.mark.parametrize("after", ["", "after"])
async def test_a_lost_checkpoint_and_ledgers_elsewhere_cost_nothing(make_node, tmp_path, before, after):
    node = await make_node(ledger_dir=str(tmp_path / before) if before else "")
    pod, answer = await started(node, "a", big(1))
    (seat,) = node.parts.seats
    await agent_starts(node, forgets=True, ledgers=str(tmp_path / after) if after else "")
    assert [one.grant for one in node.parts.seats] == [seat.grant]
    await refuses_what_is_taken(node, 1)
    ledger = ledger_of(seat.grant)
    ledger.unlink()
    assert (await node.run(pod)).mounts == answer.mounts
    assert ledger.exists()


async def test_a_ledger_that_is_no_place_of_ours_is_not_taken_over(node, tmp_path):
    """kubelet's file says so, and it would be made there, and removed with the pod."""
    await started(node, "a", big(1))
    held = node.kubelet.held
    ((place, holding),) = held.items()
    (seat,) = node.parts.seats
    for odd in ("/etc/passwd", f"/etc/../{seat.key}", seat.key, f"/etc/{seat.key}/x"):
        ours = str(ledger_of(seat.grant)).encode()
        answer = type(await node.kubelet.start_container(*place[:2])).FromString(holding.answer)
        for mount in answer.mounts:
            if mount.host_path.encode() == ours:
                mount.host_path = odd
        held[place] = type(holding)(holding.ids, answer.SerializeToString())
        node.kubelet._write_file()
        node.checkpoint.path.unlink(missing_ok=True)
        node.build()
        assert await recover.rebuild(node.parts) == 0, odd


@pytest.mark.parametrize("file", [None, EMPTY])
@pytest.mark.parametrize("ledgers", ["", "after"])
async def test_what_kubelet_forgot_is_granted_to_nobody_else_though_its_ids_are(node, tmp_path, file, ledgers):
    """It hands the same ids out again; what counts is the record."""
    pods = [(await started(node, f"p{index}", big(index)))[0] for index in range(8)]
    seats = {seat.key: seat.grant for seat in node.parts.seats}
    await kubelet_forgets(node, file)
    await agent_starts(node, ledgers=str(tmp_path / ledgers) if ledgers else "")
    assert {seat.key: seat.grant for seat in node.parts.seats} == seats
    fresh = [(await started(node, f"fresh{index}", ask(slices=one(index))))[0] for index in range(8)]
    assert len(node.parts.seats) == 16
    assert {seat.key: seat.grant for seat in node.parts.seats if seat.key in seats} == seats
    for pod in fresh:
        assert node.policy(await node.run(pod))["container"] == f"{pod.metadata.uid}/main"
    for index in range(8):
        await refuses_what_is_taken(node, index)
    for pod in pods:
        node.delete(pod)
        node.kubelet.remove(pod.metadata.uid)
    await House(node.parts).tidy()
    assert len(node.parts.seats) == 8


async def test_a_new_pod_that_kubelet_gives_the_ids_of_one_it_forgot_takes_nothing_of_it(node):
    """Without a preference, as where NUMA alignment leaves no choice."""
    await started(node, "old", big(1))
    (seat,) = node.parts.seats
    await kubelet_forgets(node)
    new = node.pod("new", ask(slices=one(2)))
    node.kubelet.endpoints[RESOURCE].options.get_preferred_allocation_available = False
    for endpoint in node.kubelet.endpoints.values():
        endpoint.devices = {name: one for name, one in endpoint.devices.items() if name in seat.ids}
    await node.kubelet.admit(new)
    assert node.policy(await node.run(new))["container"] == f"{new.metadata.uid}/main"
    assert seat.grant in [each.grant for each in node.parts.seats]
    assert node.parts.folders.keys() == {each.key for each in node.parts.seats}
    await agent_starts(node)
    assert seat.grant in [each.grant for each in node.parts.seats]


async def test_a_container_that_kubelet_forgot_gets_what_it_had_when_it_starts_again(node, tmp_path):
    """kubelet asks for it once more, as for a new one, under ids of its choice."""
    pods = [(await started(node, f"p{index}", big(index)))[0] for index in range(2)]
    await kubelet_forgets(node)
    await agent_starts(node, ledgers=str(tmp_path / "run"))
    crashed = node.update(pods[1])
    crashed = replace(crashed, status=AgentStatus(phase="Running", container_statuses=[ContainerStatus("main")]))
    node.pods.put(crashed)
    await node.kubelet.admit(crashed)
    answer = await node.run(crashed)
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)
    assert node.policy(answer)["container"] == f"{crashed.metadata.uid}/main"
    await refuses_what_is_taken(node, 1)


async def both_forget(node, **how):
    """kubelet's file and ours are lost; pods run on, and their folders are there."""
    await kubelet_forgets(node)
    await agent_starts(node, forgets=True, **how)


def without_ids(seats):
    return {seat.key: replace(seat.grant, kubelet_ids=()) for seat in seats}


@pytest.mark.parametrize("before", ["", "before"])
@pytest.mark.parametrize("after", ["", "after"])
async def test_with_both_checkpoints_lost_what_runs_has_its_grant_from_its_folder(make_node, tmp_path, before, after):
    """So it keeps its broker, whose door is in the folder; and what it has is nobody else's."""
    node = await make_node(ledger_dir=str(tmp_path / before) if before else "")
    pods = [await started(node, f"p{index}", big(index)) for index in range(2)]
    seats = list(node.parts.seats)
    await both_forget(node, ledgers=str(tmp_path / after) if after else "")
    if before != after and before:  # where ledgers were made is not known any more
        assert {one.key for one in node.parts.seats} == {one.key for one in seats}
    else:
        assert without_ids(node.parts.seats) == without_ids(seats)
    assert {(one.key, one.pod.name) for one in of_seats(node.parts.seats)} == {
        (one.key, one.grant.pod.name) for one in seats
    }
    for index, (_, answer) in enumerate(pods):
        assert node.policy(answer)[uuid(index)] == "mem_mib 30000 core_percent 10"
        await refuses_what_is_taken(node, index)
    for pod, _ in pods:
        node.delete(pod)
        node.kubelet.remove(pod.metadata.uid)
    await House(node.parts).tidy()
    assert (len(node.parts.seats), node.parts.folders.keys()) == (0, set())


async def test_with_both_checkpoints_lost_kubelet_gives_the_ids_to_others_and_they_are_granted(node):
    old, answer = await started(node, "old", big(1))
    (seat,) = node.parts.seats
    await both_forget(node)
    fresh = [(await started(node, f"fresh{index}", ask(slices=one(index))))[0] for index in range(8)]
    assert len(node.parts.seats) == 9
    for pod in fresh:
        assert node.policy(await node.run(pod))["container"] == f"{pod.metadata.uid}/main"
    assert node.policy(answer)["container"] == f"{old.metadata.uid}/main"
    await agent_starts(node)
    assert seat.key in {one.key for one in node.parts.seats}


async def test_with_both_checkpoints_lost_a_container_that_starts_again_gets_what_it_had(node):
    pod, _ = await started(node, "a", big(1))
    await both_forget(node)
    crashed = replace(
        node.update(pod), status=AgentStatus(phase="Running", container_statuses=[ContainerStatus("main")])
    )
    node.pods.put(crashed)
    await node.kubelet.admit(crashed)
    answer = await node.run(crashed)
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)
    assert node.policy(answer)["container"] == f"{pod.metadata.uid}/main"
    await refuses_what_is_taken(node, 1)


async def test_with_both_checkpoints_lost_a_container_has_the_size_it_is_held_to_until_its_record_is_judged(node):
    """Its folder has the size of now. A record that asks too much changes nothing."""
    pods = [await started(node, name, ask(mem=1000, slices=one(1, 1000))) for name in ("a", "b")]
    node.pods.complete()
    resized = node.update(pods[0][0], **record(one(1, 3000)))
    await House(node.parts).tidy()
    node.update(pods[1][0], **record(one(1, 90_000)))
    await both_forget(node)
    assert [node.policy(answer)[uuid(1)].split()[1] for _, answer in pods] == ["3000", "1000"]
    assert {one.grant.pod.name: one.grant.slices[0].mem_mib for one in node.parts.seats} == {"a": 3000, "b": 1000}
    assert ("b", "ResizeRefused") in [(name, reason) for name, reason, _ in node.told.notes]
    node.update(pods[1][0], **record(one(1, 1000)))
    node.update(resized, **record(one(1, 2000)))
    await House(node.parts).tidy()
    assert node.policy(pods[0][1])[uuid(1)].startswith("mem_mib 2000 ")


async def test_with_both_checkpoints_lost_all_of_a_card_stays_all_of_it(node):
    whole = one(1, card(1).mem_mib, 30)
    _, answer = await started(node, "a", ask(mem=card(1).mem_mib, cores=30, slices=whole))
    before = node.policy(answer)
    assert before[uuid(1)] == "mem_mib all core_percent 30"
    await both_forget(node)
    assert [seat.grant.slices for seat in node.parts.seats] == [tuple(whole)]
    assert node.policy(answer) == before


async def other_cards(node, pod, _):
    node.update(pod, **record(one(2, 30_000)))


async def not_running(node, pod, _):
    node.pods.put(replace(node.update(pod), status=AgentStatus(phase="Running")))
    node.api.pods[pod.metadata.uid] = node.pods.get(pod.metadata.uid).pod


async def given_up(node, pod, _):
    node.update(pod, **{keys.BIND_PHASE: keys.PHASE_FAILED})


async def no_policy(node, _, answer):
    path = next(one.host_path for one in answer.mounts if one.container_path.endswith("/policy"))
    replace_file(Path(path), b"version 2\n", 0o444, durable=False)


@pytest.mark.parametrize("spoil", [other_cards, not_running, given_up, no_policy])
async def test_with_both_checkpoints_lost_a_folder_that_does_not_fit_its_pod_gives_nothing(node, spoil):
    pod, answer = await started(node, "a", big(1))
    await spoil(node, pod, answer)
    await both_forget(node)
    assert (len(node.parts.seats), node.parts.folders.keys()) == (0, set())


async def test_a_container_that_was_started_without_a_broker_is_given_none_that_it_could_not_reach(make_node):
    node = await make_node(broker=False)
    await started(node, "a", big(1))
    node.settings = replace(node.settings, broker=True)
    await both_forget(node)
    (seat,) = node.parts.seats
    assert not has_broker(seat.grant)


async def test_a_folder_left_over_gives_a_container_that_has_its_seat_no_second_one(node):
    await started(node, "a", big(1))
    (seat,) = node.parts.seats
    shutil.copytree(node.parts.folders.root / seat.key, node.parts.folders.root / "0123456789abcdef")
    await agent_starts(node)
    assert [one.key for one in node.parts.seats] == [seat.key]
    assert node.parts.folders.keys() == {seat.key}


async def test_before_the_cards_are_known_nothing_is_judged_and_no_folder_removed(make_node, monkeypatch):
    """Which device nodes a container was told depends on them: what kubelet keeps would not look like ours."""
    node = await make_node(pass_device_specs=True)
    await started(node, "a", ask(slices=one(2) + one(1), cards=2))
    (seat,) = node.parts.seats
    node.checkpoint.path.unlink()
    await node.stop()
    cards, node.inventory = node.inventory, Inventory()
    node.build()
    recover.take_over(node.parts)
    node.pods.complete()
    monkeypatch.setattr(house_module, "GATHER_S", 0.0)
    monkeypatch.setattr(house_module, "SCAN_S", 0.01)
    house = House(node.parts)
    await house.tidy()
    assert node.parts.folders.keys() == {seat.key}
    running = asyncio.create_task(house.run())  # nobody tells it when the cards are known
    node.inventory.publish([cards.found(one.id) for one in cards.cards()])
    try:
        async with asyncio.timeout(30):
            while not len(node.parts.seats):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
    assert [one.grant for one in node.parts.seats] == [seat.grant]


async def test_with_the_folders_lost_too_what_runs_is_still_nobody_else_s(node, tmp_path):
    """Nothing is known of it but its record, and that it was granted."""
    for index in range(2):
        await started(node, f"p{index}", big(index))
    shutil.rmtree(node.parts.folders.root)
    await both_forget(node, ledgers=str(tmp_path / "run"))
    assert len(node.parts.seats) == 0
    for index in range(2):
        await refuses_what_is_taken(node, index)
    fresh, _ = await started(node, "fresh", ask(slices=one(1)))
    assert [seat.grant.pod.uid for seat in node.parts.seats] == [fresh.metadata.uid]


async def test_after_the_machine_has_started_anew_those_that_are_said_to_run_are_granted_again(node):
    """The API server has it from before; kubelet, whose file is lost too, admits them in turn."""
    pods = [(await started(node, f"p{index}", big(index)))[0] for index in range(3)]
    await kubelet_forgets(node)
    node.kubelet.pods.clear()
    for pod in pods:
        await node.kubelet.admit(pod)
    for index, pod in enumerate(pods):
        answer = await node.run(pod)
        assert (answer.envs["NVIDIA_VISIBLE_DEVICES"], node.policy(answer)["container"]) == (
            uuid(index),
            f"{pod.metadata.uid}/main",
        )
