import pytest

from hami.ledger.cluster import Ledger
from hami.ledger.records import NodeRecord
from hami.model.card import Card
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.scheduler.watch.hosts import Hosts
from hami.vendors.ask import cpu_milli
from hami.wire.objects import Container, Metadata, Node, NodeStatus, Pod, PodSpec, Quantities


def pod(uid: str, *cpus: str, init: str = "0", node: str | None = "n") -> Pod:
    containers = [Container(f"c{place}", Quantities(requests={"cpu": cpu})) for place, cpu in enumerate(cpus)]
    inits = [Container("init", Quantities(requests={"cpu": init}))]
    return Pod(Metadata(name=uid, uid=uid), PodSpec(containers, inits, node))


@pytest.fixture
def told() -> tuple[Hosts, dict[str, float]]:
    found: dict[str, float] = {}

    class Told(Ledger):
        def set_host(self, name: NodeName, free_cpu_milli: float, whole: float | None = None) -> None:
            found[name] = free_cpu_milli
            super().set_host(name, free_cpu_milli, whole)

    ledger = Told()
    ledger.set_node(NodeRecord(NodeName("n"), (Card(CardId("c"), Family("GPU"), "A", 0, 10, 1000, 100),)))
    return Hosts(ledger), found


def node(cpu: str) -> Node:
    return Node(metadata=Metadata(name="n"), status=NodeStatus(allocatable={"cpu": cpu}))


def test_cpu_left_is_what_bound_pods_do_not_request(told: tuple[Hosts, dict[str, float]]) -> None:
    hosts, found = told
    hosts.pod(pod("early", "500m"))
    hosts.node(node("8"))
    hosts.pod(pod("one", "1", "1500m"))
    hosts.pod(pod("one", "1", "1500m"))  # told twice, counted once
    hosts.pod(pod("waiting", "4", node=None))
    assert found["n"] == 5000
    hosts.gone(PodUid("one"))
    hosts.gone(PodUid("nobody"))
    assert found["n"] == 7500


def test_told_anew_nothing_is_counted_twice(told: tuple[Hosts, dict[str, float]]) -> None:
    hosts, found = told
    hosts.node(node("8"))
    hosts.pod(pod("one", "1"))
    hosts.begin()
    hosts.pod(pod("two", "2"))
    assert found["n"] == 6000


def test_a_pod_requests_what_runs_together_or_its_largest_init_container() -> None:
    assert cpu_milli(pod("a", "1", "250m", init="500m")) == 1250
    assert cpu_milli(pod("b", "1", init="3")) == 3000
    assert cpu_milli(pod("c", "much")) == 0


def test_of_nodes_and_pods_that_have_gone_nothing_is_kept(told: tuple[Hosts, dict[str, float]]) -> None:
    """Node names of a cluster that grows and shrinks are new ones each time."""
    hosts, found = told
    hosts.node(node("8"))
    hosts.pod(pod("one", "1"))
    hosts.node_gone("n")
    hosts.node_gone("never there")
    hosts.gone(PodUid("one"))
    assert found["n"] == 7000, "nobody is told of a node that is not there"
    assert (hosts._allocatable, hosts._used, hosts._pods) == ({}, {}, {})
    hosts.node(node("4"))
    assert found["n"] == 4000
