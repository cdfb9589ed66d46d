"""Registration, device lists and what happens when kubelet or a socket goes away."""

import asyncio

from hami.agent.cards.inventory import Found
from hami.agent.plugin.registration import identity
from hami.agent.plugin.service import devices
from hami.wire.proto import deviceplugin_pb2 as messages

from .conftest import RESOURCE, ask, card, one, uuid


async def until(condition, wait=30.0):
    async with asyncio.timeout(wait):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_kubelet_counts_every_slot_of_every_card(node):
    assert node.kubelet.allocatable(RESOURCE) == 80
    assert node.kubelet.endpoints[RESOURCE].options.pre_start_required
    assert node.kubelet.endpoints[RESOURCE].options.get_preferred_allocation_available


def test_devices_are_named_by_card_and_slot_in_a_steady_order():
    listed = devices([card(1, slots=2), card(0, slots=2, healthy=False)], topology=False)
    assert [(one.ID, one.health) for one in listed] == [
        (f"{uuid(0)}-0", "Unhealthy"),
        (f"{uuid(0)}-1", "Unhealthy"),
        (f"{uuid(1)}-0", "Healthy"),
        (f"{uuid(1)}-1", "Healthy"),
    ]
    assert not any(one.HasField("topology") for one in listed)
    assert all(len(one.ID) <= 63 for one in listed)


def test_numa_nodes_are_told_only_where_they_are_wanted():
    [listed] = devices([card(3, slots=1, numa=1)], topology=True)
    assert listed.topology == messages.TopologyInfo(nodes=[messages.NUMANode(ID=1)])


async def test_every_open_stream_hears_of_every_change(node):
    from hami.agent.kubelet import rpc
    from hami.wire.proto.services import LIST_AND_WATCH

    channel = rpc.channel(str(node.registration.socket))
    second = rpc.listen(channel, LIST_AND_WATCH, messages.Empty())
    assert len((await anext(second)).devices) == 80
    node.inventory.mark_sick(uuid(2), "xid", "Xid 79")
    assert sum(one.health == "Unhealthy" for one in (await anext(second)).devices) == 10
    await until(lambda: node.kubelet.allocatable(RESOURCE) == 70)
    node.inventory.publish([Found(card(index, slots=4)) for index in range(8)])
    await until(lambda: node.kubelet.allocatable(RESOURCE) == 28)
    await channel.close()
    await until(lambda: len(node.plugin._streams) == 1)  # the end of a stream is noticed


async def test_the_agent_registers_again_when_kubelet_restarts(node):
    before = identity(node.registration.socket)
    for count in (2, 3):
        await node.kubelet.restart()
        await node.kubelet.registered(RESOURCE)
        await until(lambda count=count: node.registration.registrations == count)  # it counts when it has the answer
    assert identity(node.registration.socket) != before  # kubelet removes every socket at its start


async def test_a_socket_that_is_removed_comes_back(node):
    node.registration.socket.unlink()
    await until(lambda: node.registration.registrations == 2)
    await node.kubelet.registered(RESOURCE)
    await node.kubelet.admit(node.pod("a", ask(slices=one(1))))


async def test_what_stands_in_the_sockets_place_and_cannot_be_removed_is_told_and_ends_nothing(node):
    """A folder made by hand; the disk may be read-only just as well."""
    node.registration.socket.unlink()
    node.registration.socket.mkdir()
    told = []
    node.registration._on_state = lambda registered, why: told.append((registered, why))
    await until(lambda: any("cannot serve" in why for _, why in told))
    assert not node.task.done()
    node.registration.socket.rmdir()
    await until(lambda: told[-1] == (True, ""))


async def test_registration_waits_for_a_kubelet_that_is_not_there_yet(make_node):
    node = await make_node(start=False)
    await node.kubelet.stop()
    states = []
    node.registration._on_state = lambda good, why: states.append((good, why))
    node.task = asyncio.create_task(node.registration.run())
    await until(lambda: states)
    assert not states[-1][0]
    assert "kubelet.sock is not there" in states[-1][1]
    await node.kubelet.start()
    await node.kubelet.registered(RESOURCE)
    assert states[-1] == (True, "")


async def test_a_refused_registration_is_tried_again(make_node):
    node = await make_node(start=False)
    register, calls = node.kubelet._register, []

    async def refuse_twice(request, context):
        calls.append(request)
        if len(calls) <= 2:
            raise RuntimeError("not yet")
        return await register(request, context)

    await node.kubelet.stop()
    node.kubelet._register = refuse_twice
    await node.kubelet.start()
    node.task = asyncio.create_task(node.registration.run())
    await node.kubelet.registered(RESOURCE)
    assert len(calls) == 3
    assert calls[0].endpoint == "nvidia-gpu.sock"
    assert calls[0].resource_name == RESOURCE


async def test_a_kubelet_that_drops_us_is_told_again_at_once(node):
    [endpoint] = node.kubelet.endpoints.values()
    await node.kubelet._hang_up(endpoint)
    await until(lambda: node.registration.registrations == 2, wait=1.5)
    await node.kubelet.registered(RESOURCE)


async def test_a_stream_of_an_earlier_registration_does_not_count(node):
    node.registration.claim()
    await until(lambda: node.registration.registrations >= 2)
    await until(lambda: node.plugin.streams == 1)


async def test_the_socket_goes_with_the_agent(node):
    socket = node.registration.socket
    await node.stop()
    assert not socket.exists()


async def test_a_successors_socket_is_left_alone(node):
    """A new agent may be there before the old one has ended, in a rolling update."""
    socket = node.registration.socket
    socket.unlink()
    socket.write_text("the successor's")
    node.registration._own = identity(node.root)
    await node.stop()
    assert socket.exists()
    socket.unlink()
