"""Following a collection: over a socket that breaks, and in fake time where time matters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.reflector import Added, Deleted, Event, Modified, Synced
from hami.kube.watch import Contact, Timing, changes, follow
from hami.model.errors import Bug
from hami.sim.apiserver import ApiServer, MemoryKube, Store
from hami.sim.apiserver.faults import Fault, Mischief
from hami.sim.apiserver.route import Place
from hami.wire.objects import Pod

QUICK = Timing(first_wait=0.001, most_wait=0.005)
PODS = Place("v1/pods", "d")


class Watched:
    """What a consumer would hold."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}
        self.synced = 0
        self.contact = Contact()

    def __call__(self, event: Event[Pod]) -> None:
        match event:
            case Added(pod) | Modified(pod):
                self.pods[pod.metadata.name] = pod.metadata.resource_version
            case Deleted(name=name):
                del self.pods[name]
            case Synced():
                self.synced += 1


@asynccontextmanager
async def following(
    kube: Kube, *, timing: Timing = QUICK, streaming: bool = True, params: dict[str, str] | None = None
) -> AsyncIterator[Watched]:
    watched = Watched()
    run = follow(kube, paths.pods(), Pod, params, watched, timing=timing, contact=watched.contact, streaming=streaming)
    task = asyncio.create_task(run)
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the condition is on the other side of a socket
            await asyncio.sleep(0.002)


def put(store: Store, name: str, **spec: object) -> str:
    stored = store.create(PODS, {"metadata": {"name": name}, "spec": {"containers": [], **spec}})
    return str(stored.value["metadata"]["resourceVersion"])


def touch(store: Store, name: str) -> None:
    store.patch(Place("v1/pods", "d", name), {"metadata": {"labels": {"at": str(store.version)}}}, "merge")


def truth(store: Store) -> dict[str, str]:
    found = (stored.value["metadata"] for stored in store.list("v1/pods"))
    return {metadata["name"]: metadata["resourceVersion"] for metadata in found}


@pytest.mark.parametrize("streaming", [True, False])
async def test_changes_arrive_and_a_cut_costs_no_list(server: ApiServer, kube: Kube, *, streaming: bool) -> None:
    put(server.store, "a")
    async with following(kube, streaming=streaming) as watched:
        await until(lambda: watched.pods == truth(server.store) and watched.synced == 1)
        server.cut()
        put(server.store, "b")
        touch(server.store, "a")
        await until(lambda: watched.pods == truth(server.store))
        server.store.delete(Place("v1/pods", "d", "a"))
        await until(lambda: "a" not in watched.pods)
        assert watched.contact.lists == 1
        assert watched.contact.fault == ""


async def test_a_forgotten_version_leads_to_a_list_and_nothing_is_lost(server: ApiServer, kube: Kube) -> None:
    put(server.store, "gone")
    put(server.store, "kept")
    async with following(kube) as watched:
        await until(lambda: watched.synced == 1)
        server.faults.script(Fault("refuse", path="watch", status=503, times=5))
        server.cut()
        server.store.delete(Place("v1/pods", "d", "gone"))
        put(server.store, "new")
        server.store.compact()
        await until(lambda: watched.synced == 2)
        assert watched.pods == truth(server.store)


async def test_a_quiet_server_that_accepts_again_is_no_fault_any_more(server: ApiServer, kube: Kube) -> None:
    async with following(kube) as watched:
        await until(lambda: watched.synced == 1)
        server.faults.script(Fault("refuse", path="watch", status=503, times=1))
        server.cut()
        await until(lambda: "503" in watched.contact.fault)
        events = watched.contact.events
        await until(lambda: not watched.contact.fault)
        assert watched.contact.events == events


async def test_410_within_the_stream_leads_to_a_list(server: ApiServer, kube: Kube) -> None:
    async with following(kube) as watched:
        await until(lambda: watched.synced == 1)
        server.faults.mischief = Mischief(gone=1.0)
        put(server.store, "a")
        await until(lambda: watched.contact.lists >= 2)
        server.faults.clear()
        await until(lambda: watched.pods == truth(server.store) and watched.synced >= 2)


async def test_an_old_server_without_streamed_lists_is_listed_by_pages(tmp_path: Path) -> None:
    async with ApiServer(watch_lists=False) as server:
        for number in range(5):
            put(server.store, f"p{number}")
        async with await Kube.connect(server.kubeconfig(tmp_path / "c")) as kube, following(kube) as watched:
            await until(lambda: watched.synced == 1)
            assert len(watched.pods) == 5
            assert watched.contact.fault == ""
            lists = [path for _, path in server.requests if "limit=500" in path]
            assert len(lists) == 1


async def test_a_list_whose_pages_are_forgotten_half_way_starts_over(server: ApiServer, kube: Kube) -> None:
    for number in range(1100):
        put(server.store, f"p{number}")
    server.faults.script(Fault("refuse", path="continue", status=410, reason="Expired", times=2))
    async with following(kube, streaming=False) as watched:
        await until(lambda: watched.synced == 1)
        assert watched.pods == truth(server.store)
        assert sum("limit=500" in path and "continue" not in path for _, path in server.requests) == 2


async def test_a_line_of_tens_of_megabytes_gets_through(server: ApiServer, kube: Kube) -> None:
    async with following(kube) as watched:
        await until(lambda: watched.synced == 1)
        put(server.store, "huge", noise="x" * (24 << 20))
        await until(lambda: "huge" in watched.pods)
        put(server.store, "small")
        await until(lambda: "small" in watched.pods)


async def test_a_selector_goes_to_the_server(server: ApiServer, kube: Kube) -> None:
    put(server.store, "here", nodeName="n1")
    put(server.store, "there", nodeName="n2")
    async with following(kube, params={"fieldSelector": "spec.nodeName=n1"}) as watched:
        await until(lambda: watched.synced == 1)
        assert set(watched.pods) == {"here"}
        put(server.store, "waits")
        server.store.bind(Place("v1/pods", "d", "waits"), {"target": {"name": "n1"}})
        await until(lambda: set(watched.pods) == {"here", "waits"})


async def test_bad_credentials_are_reported_and_followed_again_when_they_are_good(
    server: ApiServer, tmp_path: Path
) -> None:
    server.tokens = {"good"}
    put(server.store, "a")
    async with await Kube.connect(server.kubeconfig(tmp_path / "c", token="late")) as kube, following(kube) as watched:
        await until(lambda: "401" in watched.contact.fault)
        server.tokens = {"late"}
        await until(lambda: watched.synced == 1)
        assert watched.contact.fault == ""


@pytest.mark.parametrize("seed", range(4))
async def test_under_constant_trouble_the_end_is_the_servers_state(server: ApiServer, kube: Kube, seed: int) -> None:
    server.bookmarks = 0.02
    server.faults.random.seed(seed)
    chance = server.faults.random
    server.faults.mischief = Mischief(cut=0.15, duplicate=0.3, late=0.3, reorder=0.3, gone=0.05)
    async with following(kube, streaming=seed % 2 == 0) as watched:
        for _ in range(300):
            name = chance.choice("abcdefgh")
            if name not in truth(server.store):
                put(server.store, name)
            elif chance.random() < 0.3:
                server.store.delete(Place("v1/pods", "d", name))
            else:
                touch(server.store, name)
            if chance.random() < 0.02:
                server.store.compact()
            if chance.random() < 0.3:
                await asyncio.sleep(0.001)
        server.faults.clear()
        put(server.store, "last")
        await until(lambda: "last" in watched.pods and watched.pods == truth(server.store))


async def test_a_consumer_that_fails_ends_following_as_a_bug(server: ApiServer, kube: Kube) -> None:
    put(server.store, "a")

    def fails(event: Event[Pod]) -> None:
        raise KeyError("mine")

    with pytest.raises(Bug, match=r"consumer of /api/v1/pods.*mine"):
        await follow(kube, paths.pods(), Pod, None, fails, timing=QUICK)


async def test_as_an_iterator_it_waits_for_its_reader(server: ApiServer, kube: Kube) -> None:
    put(server.store, "a")
    events = changes(kube, paths.pods(), Pod, timing=QUICK)
    assert isinstance(await anext(events), Added)
    assert isinstance(await anext(events), Synced)
    put(server.store, "b")
    assert isinstance(await anext(events), Added)
    await events.aclose()  # type: ignore[attr-defined]
    await until(lambda: server.watches == 0)


# -- in fake time, without a socket ---------------------------------------------


@pytest.mark.looptime
async def test_silence_ends_a_watch_and_it_is_resumed() -> None:
    store = Store()
    kube = MemoryKube(store)
    async with following(kube, timing=Timing(idle=150.0)) as watched:
        await asyncio.sleep(1)
        assert watched.synced == 1
        await asyncio.sleep(160)
        assert watched.contact.cuts == 1
        assert watched.contact.lists == 1
        put(store, "a")
        await asyncio.sleep(1)
        assert set(watched.pods) == {"a"}


@pytest.mark.looptime
async def test_an_unreachable_server_is_asked_less_and_less_often() -> None:
    kube = MemoryKube(Store())
    kube.watch = None  # type: ignore[method-assign,assignment]
    kube.faults.script(Fault("drop", times=1000))
    asked: list[float] = []
    loop = asyncio.get_running_loop()
    real = kube.faults.of_request

    def noted(method: str, path: str) -> Fault | None:
        asked.append(loop.time())
        return real(method, path)

    kube.faults.of_request = noted  # type: ignore[method-assign]
    async with following(kube, timing=Timing(first_wait=1.0, most_wait=30.0), streaming=False):
        await asyncio.sleep(300)
    gaps = [later - sooner for sooner, later in pairwise(asked)]
    assert 0.5 <= gaps[0] <= 1.0
    assert all(15.0 <= gap <= 30.0 for gap in gaps[6:])


@pytest.mark.looptime
async def test_a_list_again_at_its_interval_finds_what_a_watch_lost() -> None:
    store = Store()
    async with following(MemoryKube(store), timing=Timing(idle=50.0, relist=600.0)) as watched:
        await asyncio.sleep(1)
        tell, store.on_change[:] = list(store.on_change), []
        put(store, "silent")  # nobody is woken
        store.compacted = 0
        await asyncio.sleep(10)
        assert watched.pods == {}
        store.on_change[:] = tell
        await asyncio.sleep(700)
        assert set(watched.pods) == {"silent"}
        assert watched.contact.lists == 2
