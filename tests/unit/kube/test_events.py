"""Events are told without delay to the teller, counted, bounded, and wait for a server that is away."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from hami.kube.events import Recorder, of_node
from hami.model.ask import PodRef
from hami.model.ids import PodUid
from hami.sim.apiserver import MemoryKube, Store
from hami.sim.apiserver.faults import Fault

pytestmark = pytest.mark.looptime
POD = PodRef("ns", "p", PodUid("u1"))


@pytest.fixture
def store() -> Store:
    return Store(now=lambda: 0.0)


@pytest.fixture
async def recorder(store: Store) -> AsyncIterator[Callable[..., Recorder]]:
    tasks = []

    def make(**arguments: float) -> Recorder:
        loop = asyncio.get_running_loop()
        made = Recorder(MemoryKube(store), "hami-scheduler", "host", now=loop.time, **arguments)  # type: ignore[arg-type]
        tasks.append(asyncio.create_task(made.run()))
        return made

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def written(store: Store) -> list[tuple[str, str, int]]:
    found = (stored.value for stored in store.list("v1/events"))
    return [(event["reason"], event["message"], event["count"]) for event in found]


async def test_an_event_is_what_kubectl_describe_looks_for(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    told.record(POD, "Warning", "FilteringFailed", "no available node")
    assert await told.drain()
    (event,) = (stored.value for stored in store.list("v1/events"))
    assert event["metadata"]["namespace"] == "ns"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "ns", "uid": "u1"}
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "FilteringFailed", "no available node")
    assert event["source"] == {"component": "hami-scheduler", "host": "host"}


async def test_a_nodes_event_is_in_the_default_namespace(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    told.record(of_node("n1"), "Normal", "Registered", "2 cards")
    assert await told.drain()
    (event,) = (stored.value for stored in store.list("v1/events"))
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"}


async def test_repeats_are_counted_on_one_event(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    for _ in range(5):
        told.record(POD, "Warning", "R", "same")
    await told.drain()
    told.record(POD, "Warning", "R", "same")
    await told.drain()
    assert written(store) == [("R", "same", 6)]
    assert told.sent == 2


async def test_a_repeat_while_the_first_is_written_is_not_forgotten(
    store: Store, recorder: Callable[..., Recorder]
) -> None:
    told = recorder()
    told._kube.faults.script(Fault("delay", seconds=1.0))  # type: ignore[attr-defined]
    told.record(POD, "Normal", "R", "same")
    await asyncio.sleep(0.5)
    told.record(POD, "Normal", "R", "same")
    assert await told.drain(10)
    assert written(store) == [("R", "same", 2)]


async def test_a_repeat_after_ten_minutes_is_a_new_event(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    told.record(POD, "Normal", "R", "same")
    await told.drain()
    await asyncio.sleep(601)
    told.record(POD, "Normal", "R", "same")
    await told.drain()
    assert written(store) == [("R", "same", 1), ("R", "same", 1)]


async def test_an_event_the_server_has_forgotten_is_begun_anew(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    told.record(POD, "Normal", "R", "same")
    await told.drain()
    kube = MemoryKube(store)
    for stored in store.list("v1/events"):
        await kube.delete(f"/api/v1/namespaces/ns/events/{stored.value['metadata']['name']}")
    told.record(POD, "Normal", "R", "same")
    await told.drain()
    assert written(store) == [("R", "same", 1)]


async def test_too_many_different_messages_become_one(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    for number in range(50):
        told.record(POD, "Warning", "R", f"attempt {number:02}")
    await told.drain(60)
    messages = written(store)
    assert len(messages) == 11
    assert messages[-1][2] == 40
    assert messages[-1][1].startswith("(combined from similar events)")


async def test_when_there_is_no_room_the_oldest_is_dropped_and_counted(store: Store) -> None:
    told = Recorder(MemoryKube(store), "c", most=3)
    for number in range(5):
        told.record(PodRef("ns", f"p{number}", PodUid("u")), "Normal", "R", "m")
    assert told.dropped == 2


async def test_events_wait_for_a_server_that_is_away(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    told._kube.faults.script(Fault("drop", times=5))  # type: ignore[attr-defined]
    told.record(POD, "Normal", "R", "m")
    assert not await told.drain(0.1)
    assert await told.drain(60)
    assert written(store) == [("R", "m", 1)]


async def test_an_event_the_server_will_not_have_stops_no_other(
    store: Store, recorder: Callable[..., Recorder]
) -> None:
    told = recorder()
    told._kube.faults.script(Fault("refuse", status=403, reason="Forbidden"))  # type: ignore[attr-defined]
    told.record(POD, "Normal", "R", "first")
    told.record(POD, "Normal", "R", "second")
    assert await told.drain()
    assert written(store) == [("R", "second", 1)]
    assert told.dropped == 1


async def test_the_budget_is_kept(store: Store, recorder: Callable[..., Recorder]) -> None:
    loop = asyncio.get_running_loop()
    told = recorder(qps=10.0, burst=1.0)
    for number in range(30):
        told.record(PodRef("ns", f"p{number}", PodUid("u")), "Normal", "R", "m")
    began = loop.time()
    assert await told.drain(60)
    assert loop.time() - began > 2.5


async def test_a_long_message_is_cut_at_a_whole_character(store: Store, recorder: Callable[..., Recorder]) -> None:
    told = recorder()
    told.record(POD, "Normal", "R", "ä" * 2000)
    await told.drain()
    ((_, message, _),) = written(store)
    assert len(message.encode()) <= 1024
    assert message.endswith("ä…")
