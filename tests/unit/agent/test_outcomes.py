"""What the cluster is told, what is given up in time, and who else offers our cards."""

import asyncio

import pytest

from hami.agent.cluster.publish import Publisher
from hami.agent.grants import timeout
from hami.agent.grants.house import House
from hami.agent.kubelet import rpc
from hami.agent.plugin.conflict import Sockets, Watch, allocatable_differs
from hami.config.schema import NvidiaConfig
from hami.kube.errors import Conflicted, NotFound, Unreachable
from hami.vendors.nvidia import Nvidia
from hami.wire import annotations as keys
from hami.wire.objects import Metadata, Pod
from hami.wire.proto import deviceplugin_pb2 as messages
from hami.wire.proto.services import HEALTHY, LIST_AND_WATCH

from .conftest import Node, ask, card, one, plain, uuid


class Cluster:
    """Takes patches; refuses as it is told."""

    def __init__(self) -> None:
        self.patches = []
        self.faults = []
        self.successor = None

    async def patch(self, path, body, kind="merge", type=None, params=None):  # noqa: A002
        await asyncio.sleep(0)
        if self.faults:
            raise self.faults.pop(0)
        self.patches.append((path, body))
        return b"{}"

    async def get(self, path, type, params=None):  # noqa: A002
        return Pod(metadata=Metadata(uid=self.successor or "uid-1"))


class Events:
    def __init__(self) -> None:
        self.told = []

    def record(self, regarding, kind, reason, message):
        self.told.append((regarding.name, kind, reason, message))


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def events():
    return Events()


@pytest.fixture
async def publisher(cluster, events):
    made = Publisher(cluster, Nvidia(NvidiaConfig()), "n", events)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


async def written(publisher, wait=30):
    async with asyncio.timeout(wait):
        while publisher.waiting():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_success_is_one_patch_with_the_record_emptied(publisher, cluster, node):
    node.pod("a", ask("one"), plain(), ask("two"))
    publisher.granted(node.pods.in_order()[0])
    await written(publisher)
    [(path, body)] = cluster.patches
    assert path.endswith("/namespaces/default/pods/a")
    assert body["metadata"] == {
        "uid": "uid-1",
        "annotations": {"hami.io/vgpu-devices-to-allocate": ";;;", "hami.io/bind-phase": "success"},
        "labels": {"hami.io/vgpu-node": "n"},
    }


async def test_a_failure_ends_the_pod_and_says_why(publisher, cluster, events, node):
    node.pod("a", ask())
    pod = node.pods.in_order()[0]
    publisher.failed(pod, "AllocationMismatch", "because")
    publisher.failed(pod, "AllocationMismatch", "because")
    await written(publisher)
    (_, record), (path, status) = cluster.patches[:2]
    assert record["metadata"]["annotations"] == {"hami.io/bind-phase": "failed"}
    assert path.endswith("/pods/a/status")
    assert status["status"] == {"phase": "Failed", "reason": "AllocationMismatch", "message": "because"}
    assert events.told == [("a", "Warning", "AllocationMismatch", "because")]


async def test_a_refusal_leaves_the_status_to_kubelet(publisher, cluster, node):
    node.pod("a", ask())
    publisher.refused(node.pods.in_order()[0], "NoRecord", "why")
    await written(publisher)
    assert [path for path, _ in cluster.patches] == ["/api/v1/namespaces/default/pods/a"]


@pytest.mark.looptime
async def test_what_was_just_written_is_not_written_again_before_the_watch_tells_of_it(publisher, cluster, node):
    node.pod("a", ask())
    for _ in range(2):
        publisher.granted(node.pods.in_order()[0])
        await written(publisher)
    assert len(cluster.patches) == 1
    await asyncio.sleep(11)
    publisher.granted(node.pods.in_order()[0])
    await written(publisher)
    assert len(cluster.patches) == 2, "nobody has told of it for long: perhaps it was lost"


@pytest.mark.looptime
async def test_an_outcome_waits_for_the_api_server(publisher, cluster, node):
    cluster.faults = [Unreachable("down")] * 3
    node.pod("a", ask())
    publisher.granted(node.pods.in_order()[0])
    await written(publisher, 60)
    assert len(cluster.patches) == 1


@pytest.mark.looptime
async def test_a_busy_moment_is_tried_again_and_a_successor_is_left_alone(publisher, cluster, node):
    node.pod("a", ask())
    cluster.faults = [Conflicted(409, "Conflict", "busy")]
    publisher.granted(node.pods.in_order()[0])
    await written(publisher, 60)
    assert len(cluster.patches) == 1
    cluster.successor = "uid-99"
    cluster.faults = [Conflicted(409, "Conflict", "uid")]
    await asyncio.sleep(11)  # what was just written is not written again
    publisher.granted(node.pods.in_order()[0])
    await written(publisher, 60)
    assert cluster.faults == []
    assert len(cluster.patches) == 1


async def test_the_outcome_of_a_pod_that_is_gone_is_dropped(publisher, cluster, node):
    cluster.faults = [NotFound(404, "NotFound", "gone")]
    node.pod("a", ask())
    publisher.granted(node.pods.in_order()[0])
    await written(publisher)
    assert cluster.patches == []


async def test_a_pod_that_succeeded_is_not_told_again(publisher, cluster, node):
    pod = node.pod("a", ask())
    node.update(pod, **{keys.BIND_PHASE: "success"})
    publisher.granted(node.pods.in_order()[0])
    assert publisher.waiting() == 0


# time


@pytest.mark.looptime
async def test_a_pod_that_kubelet_never_asks_for_is_given_up_in_time(node):
    clock = asyncio.get_running_loop().time
    node.pods._clock = clock
    node.pod("late", ask())
    done = node.pod("done", ask())
    node.update(done, **{keys.BIND_PHASE: "success"})
    task = asyncio.create_task(timeout.watch(node.parts, 300, clock))
    await asyncio.sleep(299)
    assert node.told.failures == []
    node.pod("new", ask())
    await asyncio.sleep(12)
    task.cancel()
    assert {name for name, _ in node.told.failures} == {"late"}
    assert node.told.failures[0][1] == "AllocateTimeout"


async def test_a_pod_with_its_cards_is_not_overdue(make_node):
    node = await make_node()
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    assert timeout.overdue(node.parts, 1e12, 300) == []


# a restart


async def test_after_a_restart_a_success_that_was_never_told_is_told(make_node):
    node = await make_node()
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    node.told.success.clear()
    await node.restart_agent()
    house = House(node.parts)
    await house.tidy()
    assert node.told.success == []  # not all pods are known yet
    node.pods.complete()
    await house.tidy()
    assert node.told.success == ["a"]


async def test_folders_of_running_containers_survive_a_lost_checkpoint(make_node):
    node = await make_node()
    pod = node.pod("a", ask(slices=one(1)))
    await node.kubelet.admit(pod)
    (node.root / "hook/vgpu/allocations/0123456789abcdef").mkdir()
    node.checkpoint.path.write_bytes(b"{")
    await node.restart_agent()
    node.pods.complete()
    await House(node.parts).tidy()
    assert node.parts.folders.keys() == {seat.key for seat in node.parts.seats}
    assert len(node.parts.seats) == 1


# rivals


async def rival(folder, ids):
    async def listed(_, __):
        yield messages.ListAndWatchResponse(devices=[messages.Device(ID=id, health=HEALTHY) for id in ids])  # noqa: A001
        await asyncio.sleep(600)

    server = rpc.server([(LIST_AND_WATCH, listed)], str(folder / "nvidia.sock"))
    await server.start()
    return server


async def test_a_plugin_that_offers_our_cards_is_a_rival(make_node):
    node = await make_node()
    sockets = Sockets(str(node.root / "dp"), node.registration.endpoint)
    assert await sockets.rivals(node.inventory.cards()) == []
    server = await rival(node.root / "dp", [uuid(0), "GPU-other"])
    [found] = await sockets.rivals(node.inventory.cards())
    assert found.socket == "nvidia.sock"
    assert uuid(0) in found.why
    await server.stop(None)
    (node.root / "dp/nvidia.sock").unlink(missing_ok=True)
    assert await sockets.rivals(node.inventory.cards()) == []


async def test_a_plugin_for_other_devices_is_none_and_a_dead_socket_is_none(make_node):
    import socket

    node = await make_node()
    sockets = Sockets(str(node.root / "dp"), node.registration.endpoint)
    server = await rival(node.root / "dp", ["fpga-0"])
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(node.root / "dp/dead.sock"))
    assert await sockets.rivals(node.inventory.cards()) == []
    await server.stop(None)


def test_the_nodes_count_is_compared_with_what_is_offered():
    cards = [card(0), card(1, healthy=False)]
    assert allocatable_differs("10", cards) is None
    assert allocatable_differs(None, cards) is None
    assert "allocatable is 1, we offer 10" in allocatable_differs("1", cards)


async def test_a_count_that_stays_wrong_is_told_once_and_claimed_back_with_patience(tmp_path):
    told, claims = [], []

    async def allocatable():
        return "1"

    watch = Watch(
        Sockets(str(tmp_path), "nvidia-gpu.sock"),
        lambda: [card(0)],
        allocatable,
        lambda reason, message: told.append(reason),
        lambda: claims.append(1),
        interval=10,
    )
    for _ in range(2):
        await watch.once()
    assert told == claims == []
    await watch.once()
    assert (told, claims) == (["ConflictingDevicePlugin"], [1])
    for _ in range(8):
        await watch.once()
    assert claims == [1]
    await watch.once()
    assert claims == [1, 1]
