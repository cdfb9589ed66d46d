"""Watch events through their doors: what the ledger knows afterwards, and who is told of freed capacity."""

from typing import Any

import msgspec
import pytest

from hami.kube.reflector import Added, Broken, Deleted, Modified, Synced
from hami.scheduler.gate import Gate
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.sync import NodeDoor, PodDoor
from hami.wire import register
from hami.wire.objects import Metadata, Node, Pod


class Doors:
    """Both doors on a stage's ledger."""

    def __init__(self, stage: Any, make_cards: Any) -> None:
        self.stage = stage
        self.make_cards = make_cards
        self.freed: list[str] = []
        self.gate = Gate()
        self.handshakes = Handshakes(150.0, lambda: stage.now, lambda: 1_800_000_000.0)
        vendors = stage.engine.vendors
        self.turned: list[tuple[str, str | None]] = []
        self.gone: list[str] = []
        self.nodes = NodeDoor(
            stage.ledger,
            vendors,
            self.handshakes,
            self.gate,
            self.freed.append,
            turned=lambda node, problem: self.turned.append((node, problem)),
            gone=self.gone.append,
        )
        self.pods = PodDoor(stage.ledger, vendors, stage.engine.waiting, self.gate, self.freed.append)

    def node(self, name: str, offered: str = "10", **annotations: str) -> Node:
        keyed = {"hami.io/node-nvidia-register": register.encode(self.make_cards(name))}
        keyed |= {f"hami.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
        meta = {"name": name, "annotations": keyed}
        return msgspec.convert({"metadata": meta, "status": {"allocatable": {"nvidia.com/gpu": offered}}}, Node)

    def pod(self, name: str, node: str = "a", mem: int = 4000, **more: Any) -> Pod:
        record = {"hami.io/vgpu-devices-allocated": f"GPU-{node}-0,NVIDIA,{mem},0:;", "hami.io/vgpu-node": node}
        meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "annotations": record}
        meta |= more.pop("meta", {})
        spec = {"nodeName": node, "containers": [{"name": "main"}]}
        return msgspec.convert({"metadata": meta, "spec": spec, "status": more.pop("status", {})}, Pod)

    def problem(self, name: str) -> str | None:
        state = self.stage.ledger.node(name)
        assert state is not None
        problem: str | None = state.problem
        return problem


@pytest.fixture
def doors(stage: Any, make_cards: Any) -> Doors:
    return Doors(stage, make_cards)


def test_nodes_and_pods_arrive_in_any_order(doors: Doors, stage: Any) -> None:
    doors.pods(Added(doors.pod("p")))
    doors.nodes(Added(doors.node("a")))
    assert stage.used("a") == [4000]
    assert stage.ledger.recount() == []


def test_a_node_that_is_deleted_or_no_longer_listed_is_told_of(doors: Doors) -> None:
    for name in ("a", "b", "c"):
        doors.nodes(Added(doors.node(name)))
    doors.nodes(Deleted("", "a", "uid-a"))
    doors.nodes.begin()
    doors.nodes(Added(doors.node("c")))
    doors.nodes(Synced(1, "1"))
    assert doors.gone == ["a", "b"]


def test_the_gate_opens_once_both_lists_are_complete(doors: Doors) -> None:
    doors.gate.lead()
    doors.nodes(Synced(0, "1"))
    assert doors.gate.closed is not None
    assert "pods" in doors.gate.closed
    doors.pods(Synced(0, "1"))
    assert doors.gate.closed is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_frees_its_slice(doors: Doors, stage: Any, phase: str) -> None:
    doors.nodes(Added(doors.node("a")))
    doors.pods(Added(doors.pod("p")))
    doors.freed.clear()
    doors.pods(Modified(doors.pod("p", status={"phase": phase})))
    assert stage.used("a") == [0]
    assert doors.freed == ["a"]


def test_a_terminating_pod_still_holds_its_slice(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    doors.pods(Added(doors.pod("p", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})))
    assert stage.used("a") == [4000], "also one that was terminating when we started"
    doors.pods(Deleted("default", "p", "uid-p"))
    assert stage.used("a") == [0]


def test_the_watch_s_word_replaces_the_reservation(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    stage.filter(stage.pod("p", gpu=1, gpumem=4000), "a")
    doors.pods(Modified(doors.pod("p")))
    assert stage.ledger.reservation("uid-p") is None
    assert stage.used("a") == [4000]


def test_a_pod_bound_by_somebody_else_frees_what_was_held_for_it(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    stage.filter(stage.pod("p", gpu=1, gpumem=4000), "a")
    other = {"metadata": {"name": "p", "uid": "uid-p"}, "spec": {"nodeName": "z"}}
    doors.pods(Modified(msgspec.convert(other, Pod)))
    assert stage.used("a") == [0]


def test_a_pending_pod_that_is_deleted_frees_what_was_held_for_it(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    stage.filter(stage.pod("p", gpu=1, gpumem=4000), "a")
    doors.freed.clear()
    doors.pods(Deleted("default", "p", "uid-p"))
    assert stage.used("a") == [0]
    assert doors.freed == ["a"]


def test_a_pod_with_a_broken_record_puts_its_node_out_until_it_is_gone(doors: Doors) -> None:
    doors.nodes(Added(doors.node("a")))
    broken = doors.pod("p", meta={"annotations": {"hami.io/vgpu-devices-allocated": "nonsense;"}})
    doors.pods(Added(broken))
    problem = doors.problem("a")
    assert problem is not None
    assert problem.startswith("pod default/p: its record cannot be read: ")
    doors.pods(Deleted("default", "p", "uid-p"))
    assert doors.problem("a") is None


def test_a_node_event_that_changes_nothing_of_ours_changes_nothing(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    before = stage.ledger.node("a")
    doors.freed.clear()
    doors.nodes(Modified(doors.node("a")))
    assert stage.ledger.node("a") is before
    assert doors.freed == []


def test_a_node_returns_when_its_plugin_does_and_waiting_pods_are_told(doors: Doors) -> None:
    doors.nodes(Added(doors.node("a", offered="0")))
    assert "kubelet offers no nvidia.com/gpu" in str(doors.problem("a"))
    assert doors.freed == []
    doors.nodes(Modified(doors.node("a", offered="0", node_handshake="nonsense")))
    doors.nodes(Modified(doors.node("a")))
    assert doors.problem("a") is None
    assert doors.freed == ["a"]
    assert [(node, bool(problem)) for node, problem in doors.turned] == [("a", True), ("a", False)], "each told once"


def test_a_node_falls_out_by_time_alone_and_comes_back_with_the_next_report(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a", node_handshake="Reported_2027-01-15 08:00:00")))
    stage.now += 151
    doors.nodes.judge_again()
    assert "has not reported since 2027-01-15 08:00:00 UTC" in str(doors.problem("a"))
    doors.nodes(Modified(doors.node("a", node_handshake="Reported_2027-01-15 08:02:40")))
    assert doors.problem("a") is None


def test_an_unreadable_node_is_out_with_the_reason(doors: Doors) -> None:
    doors.nodes(Added(doors.node("a")))
    doors.nodes(Broken(Metadata(name="a"), "Expected `str`, got `int`"))
    assert doors.problem("a") == "the Node object cannot be read: Expected `str`, got `int`"


def test_an_unreadable_pod_keeps_what_it_held(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    doors.pods(Added(doors.pod("p")))
    doors.pods.begin()
    doors.pods(Broken(Metadata(name="p", namespace="default", uid="uid-p"), "Expected `str`"))
    doors.pods(Synced(1, "2"))
    assert stage.used("a") == [4000]


def test_what_a_second_telling_leaves_out_is_gone(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    doors.nodes(Added(doors.node("b")))
    doors.pods(Added(doors.pod("p")))
    doors.pods(Added(doors.pod("q")))
    doors.nodes.begin()
    doors.pods.begin()
    doors.nodes(Added(doors.node("a")))
    doors.pods(Added(doors.pod("q")))
    assert stage.used("a") == [8000], "until the list is complete nothing is taken for gone"
    doors.nodes(Synced(1, "2"))
    doors.pods(Synced(1, "2"))
    assert stage.used("a") == [4000]
    assert stage.ledger.node("b") is None
    assert stage.ledger.recount() == []


def test_a_node_that_loses_its_register_is_none_of_ours_any_more(doors: Doors, stage: Any) -> None:
    doors.nodes(Added(doors.node("a")))
    doors.nodes(Modified(msgspec.convert({"metadata": {"name": "a"}}, Node)))
    assert stage.ledger.node("a") is None
