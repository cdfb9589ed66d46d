"""Simulated nodes look like registered ones, and their agents do what a real one does to the API server."""

import msgspec

from hami.config.schema import DeviceConfig
from hami.scheduler.watch.records import node_record
from hami.sim.agents import TO_ALLOCATE, granted
from hami.sim.nodes import Shape, cards_of, node_object
from hami.sim.reports import running
from hami.vendors.table import load
from hami.wire.objects import Node, Pod


def test_a_simulated_node_is_read_as_a_registered_one() -> None:
    shape = Shape(cards=2, mem_mib=16000, slots=4)
    node = msgspec.convert(node_object("n", shape), Node)
    record = node_record(node, load(DeviceConfig()), lambda _: None)
    assert record is not None
    assert (record.cards, record.problem) == (cards_of("n", shape), None)
    assert node.status.allocatable["nvidia.com/gpu"] == "8"
    assert [card.numa for card in record.cards] == [0, 1]


def test_a_grant_empties_every_container_and_marks_success() -> None:
    record = {TO_ALLOCATE: ";GPU-1,NVIDIA,1000,0:GPU-2,NVIDIA,1000,0:;GPU-1,NVIDIA,1000,0:;"}
    assert granted("uid", record) == {
        "metadata": {"uid": "uid", "annotations": {TO_ALLOCATE: ";;;", "hami.io/bind-phase": "success"}}
    }


def test_a_running_pod_has_a_running_state_for_every_container() -> None:
    pod = msgspec.convert({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}}, Pod)
    patch = running(pod)
    assert patch["status"]["phase"] == "Running"
    assert [one["name"] for one in patch["status"]["containerStatuses"]] == ["a", "b"]
    assert patch["metadata"] == {"uid": "u"}
