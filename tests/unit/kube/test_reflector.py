"""The reflector alone: single lines first, then its promise under any interleaving of troubles.

In scope: what a page or a line means. Out of scope: connections and time (test_watch).
"""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from hami.kube.errors import ApiError, Gone, Unanswered
from hami.kube.page import Page, Unreadable, decode_page
from hami.kube.reflector import Added, Broken, Deleted, Event, Modified, Reflector, Synced
from hami.sim.apiserver import Faults, Store
from hami.sim.apiserver.answer import Desk
from hami.sim.apiserver.cursor import Cursor, error_line
from hami.sim.apiserver.faults import Mischief
from hami.sim.apiserver.route import Place
from hami.wire.objects import Metadata, Pod

PODS = Place("v1/pods", "d")


class Thing(Struct, frozen=True):
    metadata: Metadata = Metadata()
    color: str = ""


def thing(name: str, version: int, uid: str = "", color: str = "") -> Thing:
    return Thing(Metadata(name=name, namespace="d", uid=uid or f"uid-{name}", resource_version=str(version)), color)


def line(verb: str, name: str, version: int, uid: str = "", color: str = "") -> bytes:
    metadata = f'{{"name":"{name}","namespace":"d","uid":"{uid or "uid-" + name}","resourceVersion":"{version}"}}'
    return f'{{"type":"{verb}","object":{{"metadata":{metadata},"color":"{color}"}}}}'.encode()


def bookmark(version: int) -> bytes:
    return f'{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"{version}"}},"color":null}}}}'.encode()


def listed(*things: Thing, version: int = 10) -> Reflector[Thing]:
    reflector = Reflector(Thing)
    relist(reflector, *things, version=version)
    return reflector


def relist(reflector: Reflector[Thing], *things: Thing, version: int) -> list[Event[Thing]]:
    reflector.begin()
    return [*reflector.page(Page(list(things), str(version))), *reflector.end(str(version))]


def test_a_list_adds_all_and_says_when_it_is_complete() -> None:
    reflector = Reflector(Thing)
    assert not reflector.watching
    assert relist(reflector, thing("a", 3), thing("b", 5), version=7) == [
        Added(thing("a", 3)),
        Added(thing("b", 5)),
        Synced(2, "7"),
    ]
    assert reflector.watching
    assert reflector.version == "7"  # the list's version, not that of an object


def test_a_change_is_told_once_however_often_it_comes() -> None:
    reflector = listed(thing("a", 3))
    changed = line("MODIFIED", "a", 11)
    assert list(reflector.line(changed)) == [Modified(thing("a", 11))]
    assert list(reflector.line(changed)) == []
    assert reflector.version == "11"


def test_a_late_word_about_a_deleted_object_does_not_raise_it_from_the_dead() -> None:
    reflector = listed(thing("a", 3))
    reflector.line(line("DELETED", "a", 12))
    assert list(reflector.line(line("MODIFIED", "a", 11))) == []
    assert len(reflector) == 0


def test_a_deletion_that_overtakes_its_creation_ends_both() -> None:
    reflector = listed()
    assert list(reflector.line(line("DELETED", "a", 12))) == []
    assert list(reflector.line(line("ADDED", "a", 11))) == []


def test_an_object_that_leaves_the_selection_may_come_back_with_the_same_uid() -> None:
    reflector = listed(thing("a", 3))
    reflector.line(line("DELETED", "a", 11))
    assert list(reflector.line(line("ADDED", "a", 12))) == [Added(thing("a", 12))]


def test_a_successor_of_the_same_name_deletes_its_predecessor_first() -> None:
    reflector = listed(thing("a", 3, "old"))
    assert list(reflector.line(line("ADDED", "a", 12, "new"))) == [
        Deleted("d", "a", "old"),
        Added(thing("a", 12, "new")),
    ]
    assert list(reflector.line(line("DELETED", "a", 11, "old"))) == []


def test_a_late_word_about_a_replaced_object_is_not_heard_even_after_its_successor_went() -> None:
    reflector = listed(thing("a", 3, "old"))
    reflector.line(line("ADDED", "a", 12, "new"))
    reflector.line(line("DELETED", "a", 13, "new"))
    assert list(reflector.line(line("MODIFIED", "a", 11, "old"))) == []


def test_the_deletion_of_an_unseen_successor_deletes_what_was_known() -> None:
    reflector = listed(thing("a", 3, "old"))
    assert list(reflector.line(line("DELETED", "a", 13, "new"))) == [Deleted("d", "a", "old")]


def test_a_relist_tells_only_differences() -> None:
    reflector = listed(thing("same", 3), thing("changed", 4), thing("gone", 5), thing("reborn", 6, "old"))
    events = relist(reflector, thing("same", 3), thing("changed", 21), thing("reborn", 22, "new"), version=30)
    assert events == [
        Modified(thing("changed", 21)),
        Deleted("d", "reborn", "old"),
        Added(thing("reborn", 22, "new")),
        Deleted("d", "gone", "uid-gone"),
        Synced(3, "30"),
    ]


def test_after_a_restore_of_etcd_the_older_list_is_the_truth() -> None:
    reflector = listed(thing("a", 300), version=400)
    assert relist(reflector, thing("a", 100), version=150) == [Modified(thing("a", 100)), Synced(1, "150")]
    assert list(reflector.line(line("MODIFIED", "a", 151))) == [Modified(thing("a", 151))]


def test_after_a_restore_of_etcd_old_deletions_are_forgotten() -> None:
    reflector = listed(thing("a", 300), version=400)
    reflector.line(line("DELETED", "a", 401))
    relist(reflector, version=150)
    assert list(reflector.line(line("ADDED", "a", 151))) == [Added(thing("a", 151))]


def test_what_a_list_contains_does_not_come_again_by_the_watch() -> None:
    reflector = listed(thing("a", 8), version=10)
    assert list(reflector.line(line("ADDED", "late", 9))) == []


def test_a_bookmark_moves_the_place_to_resume_and_is_no_event() -> None:
    reflector = listed()
    assert list(reflector.line(bookmark(99))) == []
    assert reflector.version == "99"


def test_an_error_line_is_raised_as_what_it_is() -> None:
    reflector = listed()
    with pytest.raises(Gone, match="too old"):
        reflector.line(error_line(410, "Expired", "too old resource version"))
    with pytest.raises(ApiError, match="etcd"):
        reflector.line(error_line(500, "InternalError", "etcd is gone"))


@pytest.mark.parametrize("broken", [b"<html>", b'{"type":"ADDED"', b'{"kind":"Status"}'])
def test_a_line_that_is_no_event_ends_the_connection_not_the_program(broken: bytes) -> None:
    with pytest.raises(Unanswered, match="no event"):
        listed().line(broken)


def test_an_unreadable_object_is_told_and_the_next_readable_version_is_a_change() -> None:
    reflector = listed(thing("a", 3))
    broken = line("MODIFIED", "a", 11).replace(b'"color":""', b'"color":7')
    (event,) = reflector.line(broken)
    assert isinstance(event, Broken)
    assert event.metadata.name == "a"
    assert "$.color" in event.problem
    assert list(reflector.line(line("MODIFIED", "a", 12))) == [Modified(thing("a", 12))]


def test_an_unreadable_object_in_a_list_hurts_no_other() -> None:
    reflector = Reflector(Thing)
    reflector.begin()
    metadata = Metadata(name="bad", namespace="d", uid="uid-bad")
    page = Page([thing("a", 3)], "10", unreadable=(Unreadable(metadata, "why"),))
    assert [*reflector.page(page)] == [Added(thing("a", 3)), Broken(metadata, "why")]
    assert [*reflector.end("10")] == [Synced(2, "10")]


def test_a_streamed_list_ends_at_its_bookmark_and_finds_what_vanished() -> None:
    reflector = listed(thing("a", 3), thing("gone", 4))
    reflector.begin(streaming=True)
    assert list(reflector.line(line("ADDED", "a", 3))) == []
    assert list(reflector.line(line("ADDED", "new", 20))) == [Added(thing("new", 20))]
    end = bookmark(20).replace(b'"20"}', b'"20","annotations":{"k8s.io/initial-events-end":"true"}}')
    assert list(reflector.line(end)) == [Deleted("d", "gone", "uid-gone"), Synced(2, "20")]


def test_a_deletion_within_a_streamed_list_counts_once() -> None:
    reflector = listed(thing("a", 3))
    reflector.begin(streaming=True)
    assert list(reflector.line(line("DELETED", "a", 12))) == [Deleted("d", "a", "uid-a", thing("a", 12))]
    end = bookmark(20).replace(b'"20"}', b'"20","annotations":{"k8s.io/initial-events-end":"true"}}')
    assert list(reflector.line(end)) == [Synced(0, "20")]


def test_a_streamed_list_older_than_what_is_known_asks_for_a_list_by_pages() -> None:
    reflector = listed(thing("a", 300), version=400)
    reflector.begin(streaming=True)
    end = bookmark(100).replace(b'"100"}', b'"100","annotations":{"k8s.io/initial-events-end":"true"}}')
    with pytest.raises(Gone):
        reflector.line(end)
    assert not reflector.watching


# -- the promise ---------------------------------------------------------------


class World:
    """A server, a reflector, a driver that can be stopped anywhere, and a consumer that checks every event."""

    def __init__(self, seed: int, mischief: Mischief) -> None:
        self.store = Store(now=lambda: 0.0)
        self.desk = Desk(self.store)
        self.faults = Faults(seed)
        self.faults.mischief = mischief
        self.reflector = Reflector(Pod)
        self.cursor: Cursor | None = None
        self.sent: list[bytes] = []
        self.token: str | None = None
        self.first = ""
        self.seen: dict[str, tuple[str, int]] = {}
        self.newest: dict[str, int] = {}

    # the cluster

    def write(self, name: str, verb: str) -> None:
        place = Place("v1/pods", "d", name)
        there = any(stored.value["metadata"]["name"] == name for stored in self.store.list("v1/pods"))
        if verb == "delete" and there:
            self.store.delete(place)
        elif verb == "put" and there:
            self.store.patch(place, {"metadata": {"labels": {"n": str(self.store.version)}}}, "merge")
        elif verb == "put":
            self.store.create(PODS, {"metadata": {"name": name}})

    # the driver, a step at a time

    def drive(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Gone:
            self.hang_up()
            self.reflector.lost()

    def pump(self, *, streamed: bool = False) -> None:
        if self.cursor is not None:
            self.deliver(self.cursor.read())
        elif self.reflector.watching:
            self.open({"resourceVersion": self.reflector.version})
        elif streamed and self.token is None:
            self.reflector.begin(streaming=True)
            self.open({"sendInitialEvents": "true"})
        else:
            self.page()

    def open(self, query: dict[str, str]) -> None:
        self.sent = []
        self.cursor, lines = self.desk.watch_of("/api/v1/pods", query)
        self.deliver(lines)

    def page(self) -> None:
        query = {"limit": "2"}
        if self.token is None:
            self.reflector.begin()
        elif self.token:
            query["continue"] = self.token
        _, answer = self.desk.answer("GET", "/api/v1/pods", query)
        page = decode_page(answer, Pod, "/api/v1/pods")
        self.first = self.first if self.token else page.version
        self.consume(self.reflector.page(page))
        self.token = page.next or None
        if self.token is None:
            self.consume(self.reflector.end(self.first))

    def deliver(self, lines: list[bytes]) -> None:
        assert self.cursor is not None
        delivery = self.faults.deliver(lines, self.sent)
        for chunk in delivery.chunks:
            if chunk.endswith(b"\n"):
                self.consume(self.reflector.line(chunk[:-1]))
        if delivery.gone:
            self.reflector.line(error_line(410, "Expired", "by chance")[:-1])
        if delivery.cut:
            self.hang_up()

    def bookmark(self) -> None:
        if self.cursor is not None and self.reflector.watching:
            self.deliver([*self.cursor.read(), self.cursor.bookmark()])

    def hang_up(self) -> None:
        self.cursor = None
        self.token = None

    # the consumer

    def consume(self, events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            match event:
                case Added(item):
                    assert item.metadata.name not in self.seen, "added twice"
                    self.put(item)
                case Modified(item):
                    uid, version = self.seen[item.metadata.name]
                    assert uid == item.metadata.uid
                    assert int(item.metadata.resource_version) > version, "not monotone"
                    self.put(item)
                case Deleted(name=name, uid=uid):
                    assert self.seen.pop(name)[0] == uid, "deleted twice, or another one"

    def put(self, item: Pod) -> None:
        metadata = item.metadata
        version = int(metadata.resource_version)
        assert version > self.newest.get(metadata.uid, -1), "an object went back"
        self.newest[metadata.uid] = version
        self.seen[metadata.name] = (metadata.uid, version)

    def settle(self) -> None:
        self.faults.clear()
        for _ in range(12):
            self.drive(self.pump)

    def truth(self) -> dict[str, tuple[str, int]]:
        return {
            metadata["name"]: (metadata["uid"], int(metadata["resourceVersion"]))
            for metadata in (stored.value["metadata"] for stored in self.store.list("v1/pods"))
        }


writes = st.tuples(st.sampled_from(["put", "put", "delete"]), st.sampled_from("abcde"))
steps = st.one_of(
    writes,
    writes,
    st.sampled_from(
        [("pump", "pages"), ("pump", "pages"), ("pump", "stream"), ("bookmark", ""), ("cut", ""), ("compact", "")]
    ),
)
chance = st.sampled_from([0.0, 0.0, 0.3, 0.8])
mischiefs = st.builds(
    Mischief, cut=chance, duplicate=chance, late=chance, reorder=chance, gone=st.sampled_from([0.0, 0.2])
)


@given(st.integers(0, 1 << 30), mischiefs, st.lists(steps, max_size=60))
@example(0, Mischief(), [("put", "a"), ("pump", "pages"), ("compact", ""), ("delete", "a"), ("pump", "pages")])
@settings(max_examples=300, deadline=None)
def test_any_interleaving_ends_in_the_servers_state(seed: int, mischief: Mischief, plan: list[tuple[str, str]]) -> None:
    world = World(seed, mischief)
    for verb, what in plan:
        match verb:
            case "pump":
                world.drive(partial(world.pump, streamed=what == "stream"))
            case "bookmark":
                world.drive(world.bookmark)
            case "cut":
                world.hang_up()
            case "compact":
                world.store.compact()
            case _:
                world.write(what, verb)
    world.settle()
    assert world.seen == world.truth()
    assert len(world.reflector) == len(world.seen)
