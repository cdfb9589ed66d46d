"""Containers with very many cards: the library knows sixteen, and says no to more before anything is made."""

import pytest

from .conftest import ask, uuid


async def test_sixteen_cards_of_a_container_are_all_in_its_policy(make_node):
    node = await make_node(cards=20)
    pod = node.pod("a", ask(cards=16))
    await node.kubelet.admit(pod)
    policy = node.policy(await node.run(pod))
    assert {key for key in policy if key.startswith("GPU-")} == {uuid(index) for index in range(16)}


async def test_more_are_refused_with_the_way_out_and_leave_nothing(make_node):
    node = await make_node(cards=20)
    pod = node.pod("a", ask(cards=17))
    with pytest.raises(Exception, match="cannot be prepared"):
        await node.kubelet.admit(pod)
    why = "its cards: 17 is not usable: slices of at most 16 cards: ask for fewer, or for whole cards"
    assert node.told.messages == [f"pod default/a, container main: cannot be prepared: {why}"]
    assert len(node.parts.seats) == 0
    assert node.parts.folders.keys() == set()


async def test_whole_cards_may_be_as_many_as_the_node_has(make_node):
    node = await make_node(cards=20)
    pod = node.pod("a", ask(cards=17, mem=40960, cores=100))
    await node.kubelet.admit(pod)
    answer = await node.run(pod)
    assert len(answer.envs["NVIDIA_VISIBLE_DEVICES"].split(",")) == 17
    assert not any(mount.container_path.endswith("/policy") for mount in answer.mounts)
