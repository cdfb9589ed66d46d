"""The simulated API server and the real one, held to the same behaviour, through our own client.

What stands here is what the scheduler, the agent and their tests rely on.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from hami.kube import paths
from hami.kube.client import Kube
from hami.kube.errors import AlreadyExists, Conflicted, Gone, Invalid, NotFound
from hami.kube.events import Recorder
from hami.kube.lease import Elector, Lease
from hami.kube.lines import Lines
from hami.kube.reflector import Added, Deleted, Event, Modified, Synced
from hami.kube.watch import Contact, Timing, follow
from hami.model.ask import PodRef
from hami.model.ids import PodUid
from hami.sim.apiserver import ApiServer
from hami.wire.objects import Metadata, Pod

Json = dict[str, Any]


class ConfigMap(Struct, frozen=True):
    metadata: Metadata = Metadata()


class Cluster:
    """A server to test, and a label of this test's own, so that a shared one is left as it was."""

    def __init__(self, kube: Kube, server: ApiServer | None) -> None:
        self.kube = kube
        self.server = server
        self.mark = secrets.token_hex(4)

    def name(self, name: str) -> str:
        return f"{name}-{self.mark}"

    async def pod(self, name: str, **metadata: Any) -> Pod:
        labels = {"contract": self.mark, **metadata.pop("labels", {})}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name(name), "labels": labels, **metadata},
            "spec": {
                "schedulerName": "nobody",
                "automountServiceAccountToken": False,
                "containers": [{"name": "main", "image": "none.invalid/none"}],
            },
        }
        return await self.kube.create(paths.pods("default"), body, Pod)

    def path(self, name: str, sub: str | None = None) -> str:
        return paths.pods("default", self.name(name), sub)

    async def bind(self, name: str, uid: str | None, node: str = "nowhere", **annotations: str) -> bytes:
        metadata: Json = {"name": self.name(name), "namespace": "default", "annotations": annotations}
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": metadata | ({"uid": uid} if uid else {}),
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        return await self.kube.create(self.path(name, "binding"), body)

    async def lines(self, count: int, **params: str) -> list[Json]:
        """The first lines of a watch on this test's pods."""
        found: list[Json] = []
        lines = Lines()
        asked = {"labelSelector": f"contract={self.mark}", "timeoutSeconds": "10", **params}
        async with asyncio.timeout(60), aclosing(self.kube.watch(paths.pods("default"), asked)) as chunks:
            async for chunk in chunks:
                found += [msgspec.json.decode(line) for line in lines.feed(chunk)]
                if len(found) >= count:
                    break
        return found

    async def version(self) -> str:
        return (await self.kube.page(paths.pods("default"), Pod, {"labelSelector": f"contract={self.mark}"})).version

    async def sweep(self) -> None:
        for pod in await self.kube.list(paths.pods("default"), Pod, {"labelSelector": f"contract={self.mark}"}):
            with suppress(NotFound):
                await self.kube.delete(paths.pods("default", pod.metadata.name), {"gracePeriodSeconds": 0})


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.lab)])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    if request.param == "simulated":
        async with ApiServer() as server, await Kube.connect(server.kubeconfig(tmp_path / "config")) as kube:
            yield Cluster(kube, server)
        return
    lab = request.getfixturevalue("lab")
    async with await Kube.connect(str(lab.kubeconfig)) as kube:
        async with asyncio.timeout(30):
            while True:  # pods are refused until their service account is there
                with suppress(NotFound):
                    await kube.get(paths.service_accounts("default", "default"))
                    break
                await asyncio.sleep(0.1)
        made = Cluster(kube, None)
        yield made
        await made.sweep()


def types(lines: list[Json]) -> list[str]:
    return [line["type"] for line in lines]


async def test_a_created_object_has_an_identity_and_a_version(cluster: Cluster) -> None:
    first, second = await cluster.pod("a"), await cluster.pod("b")
    assert first.metadata.uid
    assert first.metadata.uid != second.metadata.uid
    assert int(first.metadata.resource_version) < int(second.metadata.resource_version)
    assert first.status.phase == "Pending"
    with pytest.raises(AlreadyExists):
        await cluster.pod("a")


async def test_a_write_that_changes_nothing_makes_no_version(cluster: Cluster) -> None:
    await cluster.pod("a")
    patch = {"metadata": {"annotations": {"x": "1"}}}
    once = await cluster.kube.patch(cluster.path("a"), patch, type=Pod)
    twice = await cluster.kube.patch(cluster.path("a"), patch, type=Pod)
    assert once.metadata.resource_version == twice.metadata.resource_version


async def test_a_merge_patch_removes_what_is_null(cluster: Cluster) -> None:
    await cluster.pod("a", annotations={"x": "1", "y": "2"})
    patched = await cluster.kube.patch(cluster.path("a"), {"metadata": {"annotations": {"x": None}}}, type=Pod)
    assert patched.metadata.annotations == {"y": "2"}


async def test_a_json_patch_tests_before_it_writes(cluster: Cluster) -> None:
    await cluster.pod("a", annotations={"x": "1"})
    wrong = [
        {"op": "test", "path": "/metadata/annotations/x", "value": "2"},
        {"op": "remove", "path": "/metadata/annotations/x"},
    ]
    with pytest.raises(Invalid):
        await cluster.kube.patch(cluster.path("a"), wrong, "json")
    wrong[0]["value"] = "1"
    patched = await cluster.kube.patch(cluster.path("a"), wrong, "json", type=Pod)
    assert not patched.metadata.annotations


async def test_a_stale_version_is_a_conflict(cluster: Cluster) -> None:
    old = (await cluster.pod("a")).metadata.resource_version
    await cluster.kube.patch(cluster.path("a"), {"metadata": {"annotations": {"x": "1"}}})
    with pytest.raises(Conflicted):
        await cluster.kube.patch(cluster.path("a"), {"metadata": {"resourceVersion": old, "annotations": {"x": "2"}}})


async def test_a_binding_gives_node_and_record_in_one_write(cluster: Cluster) -> None:
    pod = await cluster.pod("a", annotations={"kept": "1"})
    version = await cluster.version()
    await cluster.bind("a", pod.metadata.uid, "n1", record="r")
    (line,) = await cluster.lines(1, resourceVersion=version)
    assert line["type"] == "MODIFIED"
    assert line["object"]["spec"]["nodeName"] == "n1"
    assert line["object"]["metadata"]["annotations"] == {"kept": "1", "record": "r"}


async def test_a_binding_is_refused_when_the_pod_is_bound_replaced_going_or_gone(cluster: Cluster) -> None:
    pod = await cluster.pod("a")
    with pytest.raises(Conflicted, match=r"(?i)uid"):
        await cluster.bind("a", "00000000-0000-0000-0000-000000000000")
    await cluster.bind("a", pod.metadata.uid, "n1")
    with pytest.raises(Conflicted, match="already assigned"):
        await cluster.bind("a", pod.metadata.uid, "n1")
    with pytest.raises(NotFound):
        await cluster.bind("missing", None)
    held = await cluster.pod("held", finalizers=["hami.io/contract"])
    await cluster.kube.delete(cluster.path("held"))
    with pytest.raises(Conflicted, match="being deleted"):
        await cluster.bind("held", held.metadata.uid)
    await cluster.kube.patch(cluster.path("held"), {"metadata": {"finalizers": None}})


async def test_a_node_name_cannot_be_patched(cluster: Cluster) -> None:
    await cluster.pod("a")
    with pytest.raises(Invalid):
        await cluster.kube.patch(cluster.path("a"), {"spec": {"nodeName": "n1"}})


async def test_status_is_written_by_its_own_door_only(cluster: Cluster) -> None:
    await cluster.pod("a")
    patch = {"metadata": {"labels": {"new": "1"}}, "status": {"phase": "Running"}}
    assert (await cluster.kube.patch(cluster.path("a"), patch, type=Pod)).status.phase == "Pending"
    patched = await cluster.kube.patch(cluster.path("a", "status"), {"status": {"phase": "Running"}}, type=Pod)
    assert patched.status.phase == "Running"


async def test_a_pod_on_a_node_is_only_marked_and_one_without_goes_at_once(cluster: Cluster) -> None:
    waiting, bound = await cluster.pod("waiting"), await cluster.pod("bound")
    await cluster.bind("bound", bound.metadata.uid)
    with pytest.raises(Conflicted):
        await cluster.kube.delete(cluster.path("bound"), {"preconditions": {"uid": waiting.metadata.uid}})
    for name in ("waiting", "bound"):
        await cluster.kube.delete(cluster.path(name))
    with pytest.raises(NotFound):
        await cluster.kube.get(cluster.path("waiting"), Pod)
    assert (await cluster.kube.get(cluster.path("bound"), Pod)).metadata.deletion_timestamp
    await cluster.kube.delete(cluster.path("bound"), {"gracePeriodSeconds": 0})
    with pytest.raises(NotFound):
        await cluster.kube.get(cluster.path("bound"), Pod)


async def test_a_watch_tells_every_change_in_order_and_a_deletion_has_its_own_version(cluster: Cluster) -> None:
    version = await cluster.version()
    await cluster.pod("a")
    await cluster.kube.patch(cluster.path("a"), {"metadata": {"annotations": {"x": "1"}}})
    await cluster.kube.delete(cluster.path("a"), {"gracePeriodSeconds": 0})
    lines = await cluster.lines(4, resourceVersion=version)
    assert types(lines) == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    assert "deletionTimestamp" in lines[2]["object"]["metadata"]  # marked first, also when it goes at once
    versions = [int(line["object"]["metadata"]["resourceVersion"]) for line in lines]
    assert versions == sorted(set(versions))
    # and resumed from the middle, the rest
    assert types(await cluster.lines(1, resourceVersion=str(versions[2]))) == ["DELETED"]


async def test_entering_and_leaving_a_selection_are_addition_and_deletion(cluster: Cluster) -> None:
    pod = await cluster.pod("a")
    version = await cluster.version()
    await cluster.bind("a", pod.metadata.uid, "n1")
    await cluster.kube.patch(cluster.path("a"), {"metadata": {"labels": {"contract": "other"}}})
    lines = await cluster.lines(2, resourceVersion=version, fieldSelector="spec.nodeName=n1")
    assert types(lines) == ["ADDED", "DELETED"]
    assert lines[1]["object"]["metadata"]["labels"]["contract"] == cluster.mark
    entered, left = (int(line["object"]["metadata"]["resourceVersion"]) for line in lines)
    assert entered < left
    await cluster.kube.delete(cluster.path("a"), {"gracePeriodSeconds": 0})


async def test_a_streamed_list_is_additions_and_a_closing_bookmark(cluster: Cluster) -> None:
    await cluster.pod("a")
    await cluster.pod("b")
    streamed = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    lines = await cluster.lines(3, resourceVersion="", **streamed)
    assert types(lines) == ["ADDED", "ADDED", "BOOKMARK"]
    assert lines[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_pages_of_one_list_are_of_one_version(cluster: Cluster) -> None:
    for name in "abcde":
        await cluster.pod(name)
    asked: dict[str, str | int] = {"labelSelector": f"contract={cluster.mark}", "limit": 2}
    page = await cluster.kube.page(paths.pods("default"), Pod, asked)
    names, versions = [pod.metadata.name for pod in page.items], {page.version}
    await cluster.pod("f")
    while page.next:
        page = await cluster.kube.page(paths.pods("default"), Pod, {**asked, "continue": page.next})
        names += [pod.metadata.name for pod in page.items]
        versions.add(page.version)
    assert names == [cluster.name(name) for name in "abcde"]
    assert len(versions) == 1


async def test_a_forgotten_version_is_gone(cluster: Cluster) -> None:
    await cluster.pod("a")
    if cluster.server is None:
        pytest.skip("a young server remembers everything; test_a_restarted_server_is_followed shows the real one's 410")
    cluster.server.store.compact()
    with suppress(Gone):  # the answer's status says it, or a line after an answer that was 200
        (line,) = await cluster.lines(1, resourceVersion="1")
        assert (line["type"], line["object"]["code"], line["object"]["reason"]) == ("ERROR", 410, "Expired")


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_reflector_follows(cluster: Cluster, *, streaming: bool) -> None:
    told: list[Event[Pod]] = []
    await cluster.pod("before")
    params = {"labelSelector": f"contract={cluster.mark}"}
    run = follow(cluster.kube, paths.pods("default"), Pod, params, told.append, timing=Timing(), streaming=streaming)
    task = asyncio.create_task(run)
    try:
        await _until(lambda: any(isinstance(event, Synced) for event in told))
        pod = await cluster.pod("after")
        await cluster.bind("after", pod.metadata.uid)
        await cluster.kube.delete(cluster.path("after"), {"gracePeriodSeconds": 0})
        await _until(lambda: isinstance(told[-1], Deleted))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [type(event) for event in told] == [Added, Synced, Added, Modified, Modified, Deleted]


async def test_of_two_candidates_one_leads_and_the_other_follows_it(cluster: Cluster) -> None:
    name = cluster.name("lease")
    electors = [
        Elector(cluster.kube, "default", name, identity, duration=3.0, renew=2.0, retry=0.2)
        for identity in ("one", "two")
    ]

    async def work() -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(elector.run(work)) for elector in electors]
    try:
        await _until(lambda: sum(elector.is_leader for elector in electors) == 1)
        first = next(which for which, elector in enumerate(electors) if elector.is_leader)
        tasks[first].cancel()
        await _until(lambda: electors[1 - first].is_leader)
        lease = await cluster.kube.get(paths.leases("default", name), Lease)
        assert lease.spec.holder_identity == electors[1 - first].identity
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await cluster.kube.delete(paths.leases("default", name))


async def test_events_are_accepted_and_repeats_counted(cluster: Cluster) -> None:
    pod = await cluster.pod("a")
    recorder = Recorder(cluster.kube, "hami-contract", "host")
    task = asyncio.create_task(recorder.run())
    ref = PodRef("default", pod.metadata.name, PodUid(pod.metadata.uid))
    try:
        for _ in range(2):
            recorder.record(ref, "Warning", "Contract", "a message")
            assert await recorder.drain(10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    selected = {"fieldSelector": f"involvedObject.name={pod.metadata.name}"}
    (event,) = msgspec.json.decode(await cluster.kube.get(paths.events("default"), params=selected))["items"]
    assert (event["reason"], event["message"], event["count"], event["type"]) == ("Contract", "a message", 2, "Warning")


async def test_a_restarted_server_is_followed(new_lab: Any) -> None:
    """The real server's watches begin anew at its start, so a version from before is too old for it: 410."""
    lab = await asyncio.to_thread(new_lab, scheduler=False)
    known: dict[str, str] = {}

    def told(event: Event[ConfigMap]) -> None:
        match event:
            case Added(item) | Modified(item):
                known[item.metadata.name] = item.metadata.resource_version
            case Deleted(name=name):
                del known[name]

    async with await Kube.connect(str(lab.kubeconfig)) as kube:

        async def put(name: str) -> None:
            await kube.create(paths.configmaps("default"), {"metadata": {"name": name}})

        contact = Contact()
        timing = Timing(first_wait=0.05, most_wait=0.5)
        run = follow(kube, paths.configmaps("default"), ConfigMap, None, told, timing=timing, contact=contact)
        task = asyncio.create_task(run)
        try:
            await put("kept")
            await put("gone")
            await _until(lambda: {"kept", "gone"} <= known.keys())
            for _ in range(2):
                await asyncio.to_thread(lab.control_plane.apiserver.kill)
                await _until(lambda: bool(contact.fault))
                await asyncio.to_thread(lab.control_plane.apiserver.start)
                await _until(lambda: not contact.fault)
            await kube.delete(paths.configmaps("default", "gone"))
            await put("new")
            await _until(lambda: "new" in known and "gone" not in known)
            there = await kube.list(paths.configmaps("default"), ConfigMap)
            assert known == {item.metadata.name: item.metadata.resource_version for item in there}
            assert contact.cuts >= 2
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the condition is on the other side of a socket
            await asyncio.sleep(0.01)
