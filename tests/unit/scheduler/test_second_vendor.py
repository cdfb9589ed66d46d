"""A family that the product does not know, described here and nowhere else: quotas, cards and pods of it (8.8, 7.7).

The description is what a vendor's file would be: a memory resource that counts 256 MiB each, and lists of its own.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from hami.kube.reflector import Added
from hami.ledger.records import NodeRecord
from hami.model.ask import CardAsk, CardRules
from hami.model.card import Card
from hami.model.errors import Malformed
from hami.model.ids import CardId, Family, NodeName
from hami.model.quota import Measure, Quantum
from hami.model.vendor import ContainerChange, ContainerRequest, PodChange, Vendor
from hami.observe.exposition import Sheet
from hami.scheduler.metrics import QUOTA_LIMIT, QUOTA_USED, quota_samples
from hami.scheduler.verbs.webhook import WebhookSettings, review
from hami.scheduler.watch.records import node_record, pod_record
from hami.scheduler.watch.sync import QuotaDoor
from hami.wire import annotations as keys
from hami.wire import register
from hami.wire.objects import Node, Pod, ResourceQuota

MLU = Family("MLU")
COUNT, MEM, CORES = "example.com/mlu", "example.com/mlu-memory", "example.com/mlu-cores"


class Mlu:
    """Implements `model.vendor.Vendor`."""

    family = MLU
    resources: Sequence[str] = (COUNT, MEM, CORES)
    mig = False
    quotas: Sequence[Quantum] = (
        Quantum(COUNT, MLU, Measure.CARDS),
        Quantum(MEM, MLU, Measure.MEMORY, unit=256),
        Quantum(CORES, MLU, Measure.CORES),
    )
    annotations: Sequence[str] = ()
    register_annotation = "hami.io/node-mlu-register"
    links_annotation = None
    to_allocate_annotation = "hami.io/mlu-devices-to-allocate"
    allocated_annotation = "hami.io/mlu-devices-allocated"

    def complete(self, containers: Sequence[ContainerRequest], annotations: Mapping[str, str]) -> PodChange:
        asks = any(COUNT in one.limits for one in containers)
        return PodChange(asks, tuple(ContainerChange() for _ in containers))

    def card_ask(self, container: ContainerRequest, rules: CardRules) -> CardAsk | None:
        count = int(container.limits.get(COUNT, "0"))
        if not count:
            return None
        mem, cores = int(container.limits.get(MEM, "0")), int(container.limits.get(CORES, "0"))
        if mem < 0:
            raise Malformed(f"{container.path}.resources.limits[{MEM}]", mem, "0 or more")
        return CardAsk(MLU, count, cores, mem_mib=mem * 256, rules=rules)

    def rules(self, annotations: Mapping[str, str]) -> CardRules:
        return CardRules()

    def decode_register(self, text: str) -> tuple[Card, ...]:
        return register.decode(text, MLU)

    def decode_links(self, text: str) -> Mapping[CardId, Mapping[CardId, int]]:
        return {}

    def cordoned(self, annotations: Mapping[str, str]) -> frozenset[str]:
        return frozenset()


@pytest.fixture
def both(stage: Any) -> Any:
    """A replica that knows two families, and a node with a card of each."""
    second: Vendor = Mlu()
    stage.engine = dataclasses.replace(stage.engine, vendors=(*stage.engine.vendors, second))
    cards = (
        Card(CardId("GPU-a-0"), Family("NVIDIA"), "NVIDIA-A100", 0, 10, 16000, 100),
        Card(CardId("MLU-a-0"), MLU, "MLU-370", 0, 10, 24576, 100),
        Card(CardId("MLU-a-1"), MLU, "MLU-370", 1, 10, 24576, 100),
    )
    stage.ledger.set_node(NodeRecord(NodeName("a"), cards))
    return stage


def limit(stage: Any, **hard: str | int) -> None:
    names = {"count": COUNT, "mem": MEM, "cores": CORES, "gpumem": "nvidia.com/gpumem"}
    given = {f"limits.{names[key]}": value for key, value in hard.items()}
    quota = msgspec.convert({"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": given}}, ResourceQuota)
    QuotaDoor(stage.ledger, stage.engine.vendors, lambda _namespace: None)(Added(quota))


def pod(stage: Any, name: str, **asks: int) -> Any:
    """``pod(stage, "p", mlu=1, mlu_memory=4, gpu=1, gpumem=100)``."""
    made = stage.pod(name)
    spelled = {key: f"{'example' if key.startswith('mlu') else 'nvidia'}.com/{key.replace('_', '-')}" for key in asks}
    made["spec"]["containers"][0]["resources"] = {"limits": {spelled[key]: str(value) for key, value in asks.items()}}
    return made


def admitted(stage: Any, given: Any) -> tuple[bool, str]:
    request = {"uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "default", "object": given}
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "request": request}).encode()
    answer = json.loads(review(body, WebhookSettings(), stage.engine.vendors, stage.ledger.quotas.budgets))["response"]
    return answer["allowed"], answer.get("status", {}).get("message", "")


def test_a_quota_counts_the_familys_own_unit_at_admission(both: Any) -> None:
    """10.5: the limit is multiplied by the factor. 40 units of 256 MiB are 10240 MiB."""
    limit(both, mem=40)
    assert admitted(both, pod(both, "fits", mlu=2, mlu_memory=20)) == (True, "")
    assert admitted(both, pod(both, "not", mlu=2, mlu_memory=21)) == (
        False,
        f"exceeding resource quota: namespace default: limits.{MEM}: used 0, asked 42, limit 40",
    )
    assert admitted(both, pod(both, "gpu", gpu=1, gpumem=16000)) == (True, ""), "of no concern to another family"


@pytest.mark.parametrize(("hard", "asked"), [({"count": 1}, {"mlu": 2}), ({"cores": 50}, {"mlu": 1, "mlu_cores": 60})])
def test_cards_and_cores_of_the_family_are_limited_too(both: Any, hard: Any, asked: Any) -> None:
    limit(both, **hard)
    assert admitted(both, pod(both, "p", **asked))[0] is False


def test_a_limit_of_nothing_lets_nothing_in(both: Any) -> None:
    limit(both, mem=0)
    assert admitted(both, pod(both, "p", mlu=1, mlu_memory=1))[0] is False


def test_what_is_held_and_bound_of_the_family_counts_when_the_next_is_planned(both: Any) -> None:
    limit(both, mem=40)
    assert both.filter(pod(both, "first", mlu=1, mlu_memory=30), "a")["NodeNames"] == ["a"]
    answer = both.filter(pod(both, "second", mlu=1, mlu_memory=11), "a")
    assert answer["FailedAndUnresolvableNodes"] == {
        "a": f"ResourceQuotaNotFit: namespace default: limits.{MEM}: used 30, asked 11, limit 40"
    }
    assert both.filter(pod(both, "third", mlu=1, mlu_memory=10), "a")["NodeNames"] == ["a"]
    both.ledger.release("uid-first")
    record = {Mlu.allocated_annotation: "MLU-a-0,MLU,7680,0:;", keys.NODE: "a"}
    meta = {"name": "first", "namespace": "default", "uid": "uid-first", "annotations": record}
    bound = msgspec.convert({"metadata": meta, "spec": {"nodeName": "a", "containers": [{"name": "c"}]}}, Pod)
    both.ledger.set_pod(pod_record(bound, both.engine.vendors))
    assert (
        "used 40, asked 1"
        in both.filter(pod(both, "fourth", mlu=1, mlu_memory=1), "a")["FailedAndUnresolvableNodes"]["a"]
    )
    assert both.ledger.recount() == []


def test_each_family_of_a_pod_goes_to_its_own_cards_and_its_own_quota(both: Any) -> None:  # 7.7
    limit(both, mem=40, gpumem=8000)
    two = pod(both, "two", mlu=2, mlu_memory=10, gpu=1, gpumem=6000)
    assert both.filter(two, "a")["NodeNames"] == ["a"]
    state = both.ledger.node("a")
    assert [(one.card.id, one.used_mem_mib) for one in state.cards] == [
        ("GPU-a-0", 6000), ("MLU-a-0", 2560), ("MLU-a-1", 2560)
    ]  # fmt: skip
    assert (
        "nvidia.com/gpumem: used 6000, asked 2001, limit 8000" in admitted(both, pod(both, "g", gpu=1, gpumem=2001))[1]
    )
    assert "mlu-memory: used 20, asked 21, limit 40" in admitted(both, pod(both, "m", mlu=1, mlu_memory=21))[1]


def test_more_cards_of_the_family_than_there_are_is_said_of_that_family(both: Any) -> None:
    answer = both.filter(pod(both, "p", mlu=3), "a")
    assert answer["FailedAndUnresolvableNodes"] == {"a": "NodeInsufficientDevice: asks 3 cards, the node has 2"}
    both.node("g")
    answer = both.filter(pod(both, "q", mlu=1), "g")
    assert answer["FailedAndUnresolvableNodes"] == {"g": "Device type not found: the node has no MLU card"}


def test_use_of_the_family_is_told_as_its_resources(both: Any) -> None:
    limit(both, mem=40)
    both.filter(pod(both, "p", mlu=1, mlu_memory=30), "a")
    sheet = Sheet((QUOTA_USED, QUOTA_LIMIT))
    sheet.put("", 0, quota_samples(both.ledger.quotas, both.engine.vendors))
    lines = [one for one in sheet.render().decode().splitlines() if MEM in one]
    assert {one.split("{")[0]: float(one.split()[-1]) for one in lines} == {
        "hami_resource_quota_used": 30, "hami_resource_quota_limit": 40
    }  # fmt: skip


def test_cards_of_both_families_are_read_from_one_node(both: Any) -> None:
    cards = both.ledger.node("a").cards
    texts = {
        "hami.io/node-nvidia-register": register.encode([one.card for one in cards if one.card.family != MLU]),
        Mlu.register_annotation: register.encode([one.card for one in cards if one.card.family == MLU]),
    }
    status = {"allocatable": {"nvidia.com/gpu": "10", COUNT: "20"}}
    node = msgspec.convert({"metadata": {"name": "a", "annotations": texts}, "status": status}, Node)
    found = node_record(node, both.engine.vendors, lambda _name: None)
    assert found == NodeRecord(NodeName("a"), tuple(one.card for one in cards))
