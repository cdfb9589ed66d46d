"""Allocate against a simulated kubelet on real sockets: who gets what, and who gets nothing."""

import asyncio
import random

import pytest

from hami.agent.grants.checkpoint import State
from hami.sim.kubelet import Rejected
from hami.wire import annotations as keys

from .conftest import RESOURCE, ask, one, plain, uuid


async def test_a_pod_gets_the_cards_and_limits_of_its_record(node):
    pod = node.pod("a", ask(mem=3000, cores=30, slices=one(5, 3000, 30)))
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid(5)
    assert answer.envs["CUDA_DEVICE_MEMORY_LIMIT_0"] == "3000m"
    assert answer.envs["CUDA_DEVICE_SM_LIMIT"] == "30"
    assert node.policy(answer)[uuid(5)] == "mem_mib 3000 core_percent 30"
    assert node.policy(answer)["container"] == f"{pod.metadata.uid}/main"
    assert node.told.success == ["a"]


async def test_the_device_ids_kubelet_holds_are_of_the_granted_cards(node):
    pod = node.pod("a", ask(cards=2, slices=[*one(6), *one(3)]))
    await node.kubelet.admit(pod)
    [holding] = node.kubelet.held.values()
    assert {one.rpartition("-")[0] for one in holding.ids} == {uuid(3), uuid(6)}


async def test_many_pods_bound_at_once_each_get_their_own_whatever_kubelets_order(node):
    pods = [node.pod(f"p{i}", ask(mem=100 + i, slices=one(i % 8, 100 + i))) for i in range(40)]
    random.Random(3).shuffle(pods)
    for pod in pods:
        await node.kubelet.admit(pod)
    for pod in pods:
        answer = await node.run(pod)
        number = int(pod.metadata.name[1:])
        assert answer.envs["NVIDIA_VISIBLE_DEVICES"] == uuid(number % 8)
        assert node.policy(answer) | {"end": ""} == node.policy(answer) | {
            uuid(number % 8): f"mem_mib {100 + number} core_percent 10",
            "container": f"{pod.metadata.uid}/main",
            "end": "",
        }
    assert sorted(node.told.success) == sorted(pod.metadata.name for pod in pods)
    assert node.verifier.exchanged == node.verifier.stopped == 0


async def test_a_pod_the_watch_has_not_shown_yet_is_found_by_a_fresh_list(node):
    node.pod("earlier", ask(slices=one(1)))
    late = node.pod("late", ask(slices=one(2)), seen=False)
    await node.kubelet.admit(late)
    assert (await node.run(late)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(2)
    assert node.api.fetches == 1


async def test_containers_are_served_in_kubelets_order_and_success_comes_with_the_last(node):
    pod = node.pod(
        "a",
        ask("first", slices=one(1, 1000)),
        plain(),
        ask("second", mem=2000, slices=one(2, 2000)),
        inits=[ask("before", mem=500, slices=one(3, 500))],
    )
    told = []
    node.parts.outcome.granted = lambda pod: told.append(len(node.kubelet.held))
    await node.kubelet.admit(pod)
    assert told == [2]  # kubelet had two answers when the third, the last, was on its way
    for name, index, mem in (("before", 3, 500), ("first", 1, 1000), ("second", 2, 2000)):
        answer = await node.run(pod, name)
        assert node.policy(answer)[uuid(index)].startswith(f"mem_mib {mem} ")
        assert node.policy(answer)["container"].endswith(f"/{name}")


async def test_an_app_container_that_reuses_its_init_containers_ids_gets_its_own_record(node):
    pod = node.pod("a", ask("main", slices=one(1, 1000)), inits=[ask("warm", mem=200, slices=one(1, 200))])
    await node.kubelet.admit(pod)
    held = {container: holding.ids for (_, container, _), holding in node.kubelet.held.items()}
    assert held["warm"] == held["main"]
    assert node.policy(await node.run(pod, "warm"))[uuid(1)].startswith("mem_mib 200 ")
    assert node.policy(await node.run(pod, "main"))[uuid(1)].startswith("mem_mib 1000 ")


async def test_a_pod_whose_only_card_is_in_an_init_container_starts(node):
    pod = node.pod("a", plain("main"), inits=[ask("warm", slices=one(4))])
    await node.kubelet.admit(pod)
    assert (await node.run(pod, "warm")).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(4)


async def test_a_sidecar_keeps_its_ids_to_itself(node):
    pod = node.pod("a", ask("main", slices=one(1)), inits=[ask("proxy", mem=300, slices=one(1, 300), sidecar=True)])
    await node.kubelet.admit(pod)
    held = {container: holding.ids for (_, container, _), holding in node.kubelet.held.items()}
    assert not held["proxy"] & held["main"]
    assert node.policy(await node.run(pod, "proxy"))[uuid(1)].startswith("mem_mib 300 ")


# refusals


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"record": False}, "NoRecord", "has no HAMi record"),
        ({"scheduler": "default-scheduler"}, "RecordRefused", "'default-scheduler' is not trusted"),
        ({"annotations": {keys.NODE: "node-2"}}, "RecordUnusable", "node-1, this node"),
        ({"annotations": {keys.BIND_PHASE: "failed"}}, "AllocationGivenUp", "delete it"),
        ({"annotations": {"hami.io/vgpu-devices-allocated": "garbage;"}}, "RecordUnusable", "UUID,Type,MemMiB,Cores"),
        ({"annotations": {"hami.io/vgpu-devices-allocated": ";;;"}}, "RecordUnusable", "1 entries"),
    ],
)
async def test_a_pod_without_a_good_record_gets_no_card(node, changes, reason, words):
    pod = node.pod("a", ask(slices=one(1)), **changes)
    with pytest.raises(Rejected, match=words):
        await node.kubelet.admit(pod)
    assert node.told.refusals == [("a", reason)]
    assert len(node.parts.seats) == 0


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (ask(mem=1000, slices=one(1, 1001)), "gives 1001 MiB"),
        (ask(cores=10, slices=one(1, 1000, 11)), "gives 11 %"),
        (ask(slices=one(99)), "is not on this node now"),
        (ask(cards=2, slices=[*one(1), *one(1)]), "one card twice"),
        (ask(env=[("NVIDIA_VISIBLE_DEVICES", "all")]), "NVIDIA_VISIBLE_DEVICES"),
    ],
)
async def test_a_forged_record_gets_no_more_than_was_asked(node, container, words):
    pod = node.pod("a", container)
    with pytest.raises(Rejected, match=words):
        await node.kubelet.admit(pod)
    assert node.told.refusals == [("a", "RecordRefused")]


async def test_a_record_for_an_unhealthy_card_is_refused(node):
    node.inventory.mark_sick(uuid(1), "health", "Xid 79")
    pod = node.pod("a", ask(slices=one(1)))
    with pytest.raises(Rejected, match="is unhealthy"):
        await node.kubelet.admit(pod)


async def test_a_card_is_not_promised_twice_whatever_records_say(node):
    first = node.pod("first", ask(mem=30000, slices=one(1, 30000)))
    forged = node.pod("forged", ask(mem=11000, slices=one(1, 11000)))
    await node.kubelet.admit(first)
    with pytest.raises(Rejected, match="40960 MiB, with this pod 41000 would be promised"):
        await node.kubelet.admit(forged)
    node.kubelet.remove(first.metadata.uid)
    node.delete(first)
    again = node.pod("again", ask(mem=11000, slices=one(1, 11000)))
    await node.kubelet.admit(again)


async def test_capacity_is_judged_by_a_fresh_list_before_it_refuses(node):
    first = node.pod("first", ask(mem=30000, slices=one(1, 30000)))
    await node.kubelet.admit(first)
    # Deleted, and its slice given to another pod, before the watch has told of either.
    del node.api.pods[first.metadata.uid]
    node.kubelet.remove(first.metadata.uid)
    second = node.pod("second", ask(mem=30000, slices=one(1, 30000)))
    await node.kubelet.admit(second)
    assert (await node.run(second)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)


async def test_an_unscheduled_pod_does_not_take_another_pods_grant(node):
    waiting = node.pod("waiting", ask(slices=one(1)))
    stranger = node.pod("stranger", ask(slices=one(2)), record=False)
    with pytest.raises(Rejected, match="has no HAMi record"):
        await node.kubelet.admit(stranger)
    await node.kubelet.admit(waiting)
    assert (await node.run(waiting)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)


# the same ask twice, restarts, disks


async def test_the_same_ask_twice_gets_the_same_grant(node):
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    [(place, holding)] = node.kubelet.held.items()
    first = await node.run(pod)
    del node.kubelet.held[place]  # kubelet died before it wrote the answer down
    (node.root / "dp/kubelet_internal_checkpoint").unlink()
    again = await node.allocator.allocate(tuple(holding.ids))
    assert {mount.host_path for mount in again.mounts} == {mount.host_path for mount in first.mounts}
    assert dict(again.env) == dict(first.envs)
    assert len(node.parts.seats) == 1


async def test_a_kubelet_that_lost_an_answer_gets_it_again_under_other_ids(node):
    first, second = node.pod("first", ask(slices=one(1))), node.pod("second", ask(slices=one(1, 1000)))
    await node.kubelet.admit(first)
    node.kubelet.held.clear()
    (node.root / "dp/kubelet_internal_checkpoint").unlink()
    await node.kubelet.restart()
    await node.kubelet.registered(RESOURCE)
    await node.kubelet.admit(first)
    await node.kubelet.admit(second)
    for pod in (first, second):
        assert node.policy(await node.run(pod))["container"] == f"{pod.metadata.uid}/main"
    assert len(node.parts.seats) == 2


async def test_an_agent_restart_between_allocate_and_start_changes_nothing(node):
    pods = [node.pod(f"p{i}", ask(mem=100 + i, slices=one(i, 100 + i))) for i in range(4)]
    for pod in pods[:3]:
        await node.kubelet.admit(pod)
    await node.restart_agent()
    await node.kubelet.admit(pods[3])
    for index, pod in enumerate(pods):
        assert node.policy(await node.run(pod))[uuid(index)].startswith(f"mem_mib {100 + index} ")


async def test_an_agent_that_dies_before_it_answers_leaves_nothing(node):
    pod = node.pod("a", ask(slices=one(1)))
    node.parts.folders.write = lambda *_: (_ for _ in ()).throw(SystemError("killed"))
    with pytest.raises(Rejected):
        await node.kubelet.admit(pod)
    [seat] = node.checkpoint.load()
    assert seat.state is State.STARTED
    await node.restart_agent()
    assert len(node.parts.seats) == 0
    await node.kubelet.admit(pod)
    assert node.policy(await node.run(pod))[uuid(1)].startswith("mem_mib 1000 ")


async def test_a_full_disk_fails_the_allocation_cleanly(node):
    first, second = node.pod("first", ask(slices=one(1))), node.pod("second", ask(slices=one(2)))
    await node.kubelet.admit(first)
    save = node.checkpoint.save

    def full(seats, **how):
        raise OSError(28, "No space left on device")

    node.checkpoint.save = full
    with pytest.raises(Rejected, match="No space left on device"):
        await node.kubelet.admit(second)
    assert node.told.refusals == [("second", "PrepareFailed")]
    node.checkpoint.save = save
    assert [seat.grant.pod.name for seat in node.parts.seats] == ["first"]
    assert (await node.run(first)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)


async def test_a_tampered_annotation_does_not_change_a_grant(node):
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    node.update(pod, **{"hami.io/vgpu-devices-allocated": f"{uuid(1)},NVIDIA,40000,100:;"})
    assert node.policy(await node.run(pod))[uuid(1)] == "mem_mib 1000 core_percent 10"


async def test_seats_and_folders_go_with_their_pods(node):
    from hami.agent.grants import recover

    stays, goes, ends = (node.pod(name, ask(slices=one(1))) for name in ("stays", "goes", "ends"))
    for pod in (stays, goes, ends):
        await node.kubelet.admit(pod)
    node.delete(goes)
    node.update(ends, phase="Succeeded")
    assert len(await recover.forget(node.parts)) == 2
    assert [seat.grant.pod.name for seat in node.parts.seats] == ["stays"]
    assert node.parts.folders.keys() == {seat.key for seat in node.parts.seats}


async def test_without_the_api_server_known_pods_are_still_served(node):
    pod = node.pod("a", ask(slices=one(1)))
    node.api.down = True
    await node.kubelet.admit(pod)
    assert (await node.run(pod)).envs["NVIDIA_VISIBLE_DEVICES"] == uuid(1)


async def test_without_the_api_server_an_unknown_pod_is_refused_in_time(node):
    pod = node.pod("a", ask(slices=one(1)), seen=False)
    node.api.down = True
    started = asyncio.get_running_loop().time()
    with pytest.raises(Rejected, match="the API server does not answer: no route to host"):
        await node.kubelet.admit(pod)
    assert asyncio.get_running_loop().time() - started < 3


async def test_kubelet_is_not_asked_for_its_pods_while_it_waits_for_an_allocate(node):
    """It might forget the ids on their way; so the look comes with the preference, and reused ids need none."""
    for index in range(3):
        pod = node.pod(f"p{index}", ask("main", slices=one(1)), inits=[ask("warm", slices=one(1))])
        await node.kubelet.admit(pod)
    assert node.kubelet.asked_while_allocating == 0


async def test_ids_that_kubelet_hands_out_twice_stay_apart(node):
    """kubelet drops ids on their way out when it is asked for its pods at that moment and a pod has just gone."""
    gone, first, second = (node.pod(name, ask(slices=one(1))) for name in ("gone", "first", "second"))
    await node.kubelet.admit(gone)
    node.kubelet.remove(gone.metadata.uid)
    node.delete(gone)
    allocate = node.allocator.allocate

    async def with_a_look(ids):
        node.kubelet._removed = True
        await node.resources.view(1.0)
        return await allocate(ids)

    node.plugin._allocator.allocate = with_a_look
    await node.kubelet.admit(first)
    node.plugin._allocator.allocate = allocate
    await node.kubelet.admit(second)
    ids = [holding.ids for holding in node.kubelet.held.values()]
    assert not ids[0] & ids[1]
