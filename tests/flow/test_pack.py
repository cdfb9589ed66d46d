"""The node policy `pack` on a real control plane: the simulator says where each pod goes, and there it goes."""

import time
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from hami.lab.front import Front, own_address
from hami.model.ask import NodePolicy
from hami.sim.traces.cluster import Cluster as Simulated
from hami.sim.traces.placers import EnginePlacer, Refused
from hami.sim.traces.trace import Job, Machine
from hami.wire.annotations import decode_devices

from .test_explain import answer, hami, person

if TYPE_CHECKING:
    from hami.lab import Lab
    from hami.lab.product import Product

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MEM = 16_000
KINDS = ((("wide-a", "wide-b"), 4, 32), (("rich-a", "rich-b"), 2, 64), (("one-a", "one-b", "one-c"), 1, 8))
"""Names, cards and cores of the nodes."""
SIZES = (2000, 5000, 7500, 11_000, 13_000)
NEWS_S = 0.2
"""What a bound pod takes of its host reaches the scheduler by its watch."""


@pytest.fixture(scope="module")
def product_lab() -> "Iterator[tuple[Lab, Product]]":
    """As the other modules have it, but for the policy; kube-scheduler is the stock one."""
    from hami.lab import Lab
    from hami.lab.product import Product

    with Lab() as lab:
        product = Product(lab, flags={"node-scheduler-policy": "pack"})
        product.site = replace(product.site, cpu_pods=True)
        product.start()
        product.install()
        yield lab, product


@pytest.fixture(scope="module", autouse=True)
def _nodes(_module_cluster: Any, product_lab: "tuple[Lab, Product]") -> None:
    """All of them known to the scheduler before the first pod: what `pack` makes of it depends on what there is."""
    for names, cards, cores in KINDS:
        _module_cluster.nodes(*names, cards=cards, mem_mib=MEM, cpu=str(cores), model="NVIDIA-A10")
    replica = product_lab[1].replicas[0]
    usable = f'hami_scheduler_nodes{{state="usable"}} {len(machines())}.0'
    _module_cluster.until("all nodes are usable", lambda: usable in replica.get("/metrics")[1], 60)


def machines() -> list[Machine]:
    return [
        Machine(name, 1000 * cores, 512 * 1024, cards, "NVIDIA-A10", MEM, card_slots=10)
        for names, cards, cores in KINDS
        for name in names
    ]


def jobs(number: int) -> list[Job]:
    """Shares, whole cards and pairs of cards, in an order that a seed fixes."""
    random, found = Random(5), []
    for place in range(number):
        cards = 2 if random.random() < 0.15 else 1
        mem = MEM if cards == 2 or random.random() < 0.2 else random.choice(SIZES)
        found.append(Job(f"pod-{place:02}", 1000 * random.choice((1, 2, 4, 8)), 0, cards, mem))
    return found


def all_known(cluster: Any, simulated: Simulated, placer: EnginePlacer) -> None:
    """Until kube-scheduler knows every node as ready, and its CPU; both learn from the pod that asks for it."""
    never = Job("never", 8000, 0, 5, 1)
    assert isinstance(placer.place(never, 0.0), Refused)
    submit(cluster, never)

    def known() -> bool:
        reason = cluster.reason("never")
        unaware = any(words in reason for words in ("Insufficient cpu", "Too many pods", "taint"))
        return f"0/{len(simulated.names)} nodes" in reason and not unaware

    cluster.until("all nodes are known", known, 60)
    cluster.delete("never")


def submit(cluster: Any, job: Job) -> None:
    pod = cluster.pod(job.name, gpu=job.cards, gpumem=job.card_mem)
    pod["spec"]["containers"][0]["resources"]["requests"] = {"cpu": f"{job.cpu_milli}m"}
    cluster.create(pod)


@pytest.mark.flaky(reruns=0)  # what the scheduler has seen once it knows: a second chance is none
def test_every_pod_goes_where_the_simulator_says_and_gets_the_same_cards(cluster: Any) -> None:
    simulated = Simulated(machines(), NodePolicy.PACK)
    placer, moved = EnginePlacer(simulated), 0
    all_known(cluster, simulated, placer)
    for job in jobs(30):
        expected = placer.place(job, 0.0)
        submit(cluster, job)
        if isinstance(expected, Refused):
            assert cluster.reason(job.name)
            cluster.delete(job.name)
            continue
        assert cluster.bound(job.name) == [simulated.names[expected]], job
        record = simulated.ledger.pod(job.name)  # type: ignore[arg-type]
        assert record is not None
        due = sorted(one.card for one in record.containers[0])
        got = sorted(one.card for slices in decode_devices(cluster.record(job.name)) for one in slices)
        assert [card.replace("/", "-") for card in due] == [card.removeprefix("GPU-") for card in got]
        moved += 1
        time.sleep(NEWS_S)
    assert moved >= 15
    assert simulated.allocated() > 10  # of 15 cards


def at(name: str) -> dict[str, Any]:
    """The affinity that leaves a pod one node."""
    field = {"key": "metadata.name", "operator": "In", "values": [name]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def test_a_pod_without_cards_goes_where_no_free_card_needs_its_cpu(cluster: Any) -> None:
    """That host has least CPU left, so kube-scheduler's own rule would choose it last."""

    def cpu_pod(name: str, cores: int, **spec: Any) -> None:
        pod = cluster.pod(name, spec={"schedulerName": "hami-scheduler", **spec})
        pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": str(cores)}}
        cluster.create(pod)

    cpu_pod("neighbour", 8, **at("rich-b"))
    for name in ("hungry-0", "hungry-1"):
        pod = cluster.pod(name, gpu=1, gpumem=MEM, spec=at("rich-a"))
        pod["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "30"}
        cluster.create(pod)
        assert cluster.bound(name) == ["rich-a"]
    time.sleep(NEWS_S)
    cpu_pod("modest", 3)
    assert cluster.bound("modest") == ["rich-a"]


def test_explain_shows_the_seats_and_prices_that_decided(cluster: Any, product: "Product", tmp_path: Any) -> None:
    for job in jobs(8):
        submit(cluster, job)
        cluster.bound(job.name)
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback, which a Service cannot point to")
    with Front(product, address):
        operator = person(product.lab, tmp_path, "packer", ("get", "pods"), ("list", "nodes"), ("create", "pods"))
        found = answer("fit", "--gpumem", "5000", kubeconfig=operator, status=0)
        scores = {node["node"]: node["pack"]["score"] for node in found["nodes"] if "pack" in node}
        assert max(scores, key=lambda name: scores[name]) == found["plan"]["node"]
        best = next(node["pack"] for node in found["nodes"] if node["node"] == found["plan"]["node"])
        assert best["seats"]
        assert any(price["free"] - price["free_after"] == 313 for price in best["prices"])  # 5000 of 16000, rounded up
        _, printed, _ = hami("fit", "--gpumem", "5000", kubeconfig=operator)
        assert "pack: score" in printed
        (own,) = answer("explain", "pod", "default/pod-00", kubeconfig=operator, status=0)["nodes"]
        assert own["pack"]["score"] < 0  # of a pod that has its cards: its node without it
        assert [price["free"] > price["free_after"] for price in own["pack"]["prices"]].count(True) == jobs(1)[0].cards
