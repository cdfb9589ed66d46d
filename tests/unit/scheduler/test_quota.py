"""Quotas in the scheduler: read, refused at admission and in /filter, shown, and no reason to wait once they ease."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from hami.kube.reflector import Added, Deleted, Modified, Synced
from hami.model.errors import Malformed
from hami.observe.exposition import Sheet
from hami.scheduler.gate import Gate
from hami.scheduler.metrics import QUOTA_LIMIT, QUOTA_USED, quota_samples
from hami.scheduler.requeue import Waker
from hami.scheduler.verbs.webhook import WebhookSettings, review
from hami.scheduler.watch.handshake import Handshakes
from hami.scheduler.watch.records import quota_record
from hami.scheduler.watch.sync import NodeDoor, PodDoor, QuotaDoor
from hami.scheduler.watch.watches import Watches
from hami.sim.apiserver import MemoryKube, Store
from hami.wire.objects import Pod, ResourceQuota

MEM, CORES = "limits.nvidia.com/gpumem", "limits.nvidia.com/gpucores"


def quota(name: str = "q", **hard: str | int) -> ResourceQuota:
    spelled = {"mem": MEM, "cores": CORES, "count": "limits.nvidia.com/gpu", "cpu": "limits.cpu"}
    given = {spelled[key]: value for key, value in hard.items()}
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": {"hard": given}}, ResourceQuota)


def door(stage: Any, eased: list[str] | None = None) -> QuotaDoor:
    return QuotaDoor(stage.ledger, stage.engine.vendors, (eased if eased is not None else []).append)


def admit(stage: Any, pod: Any, namespace: str = "default") -> tuple[bool, str]:
    request = {"uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": namespace, "object": pod}
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "request": request}).encode()
    answer = json.loads(review(body, WebhookSettings(), stage.engine.vendors, stage.ledger.quotas.budgets))["response"]
    return answer["allowed"], answer.get("status", {}).get("message", "")


def test_only_lines_about_cards_are_kept_in_the_engines_units(stage: Any) -> None:
    record = quota_record(quota(mem="8k", cores=50, count="2.5", cpu="4"), stage.engine.vendors)
    kept = [(limit.quantum.key, limit.most) for limit in record.limits]
    assert kept == [("limits.nvidia.com/gpu", 2), (MEM, 8000), (CORES, 50)]
    assert quota_record(quota(cpu="4"), stage.engine.vendors).limits == ()
    with pytest.raises(Malformed):
        quota_record(quota(mem="much"), stage.engine.vendors)


def test_who_is_over_quota_is_refused_on_the_nodes_asked_about_and_on_no_other(stage: Any) -> None:
    stage.node("a")
    door(stage)(Added(quota(mem=8000)))
    ask = stage.engine.ask(msgspec.convert(stage.pod("p", gpu=1, gpumem=9000), Pod))
    assert [list(stage.ledger.decide(ask, names).refusals) for names in (None, ["a", "b"], [])] == [
        ["a"],
        ["a", "b"],
        [],
    ]


def test_two_cards_of_5000_do_not_pass_a_quota_of_8000(stage: Any) -> None:  # 8.7
    door(stage)(Added(quota(mem=8000)))
    allowed, said = admit(stage, stage.pod("p", gpu=2, gpumem=5000))
    assert not allowed
    assert said == (
        "exceeding resource quota: namespace default: limits.nvidia.com/gpumem: used 0, asked 10000, limit 8000"
    )
    assert admit(stage, stage.pod("p", gpu=2, gpumem=4000)) == (True, "")
    assert admit(stage, stage.pod("p", gpu=2, gpumem=5000), "other") == (True, "")


def test_a_pod_in_the_requests_namespace_is_judged_there(stage: Any) -> None:
    door(stage)(Added(quota(mem=8000)))
    pod = stage.pod("p", gpu=1, gpumem=9000)
    del pod["metadata"]["namespace"]
    assert not admit(stage, pod)[0]


def test_init_containers_count_by_the_largest(stage: Any) -> None:
    door(stage)(Added(quota(mem=1000)))
    pod = stage.pod("p", gpu=1, gpumem=500)
    limits = {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "800"}
    pod["spec"]["initContainers"] = [{"name": f"i{number}", "resources": {"limits": limits}} for number in range(2)]
    assert admit(stage, pod)[0]
    limits["nvidia.com/gpumem"] = "1500"
    assert "asked 1500" in admit(stage, pod)[1]


def test_what_is_bound_counts_at_admission_and_in_filter(stage: Any) -> None:
    stage.node("a", mem=16000)
    door(stage)(Added(quota(mem=8000)))
    held = stage.pod("held", gpu=1, gpumem=5000)
    assert stage.filter(held, "a")["NodeNames"] == ["a"]
    assert "used 5000, asked 4000, limit 8000" in admit(stage, stage.pod("p", gpu=1, gpumem=4000))[1]
    answer = stage.filter(stage.pod("q", gpu=1, gpumem=4000), "a", "stranger")
    said = "ResourceQuotaNotFit: namespace default: limits.nvidia.com/gpumem: used 5000, asked 4000, limit 8000"
    assert answer["FailedNodes"] is None
    assert answer["FailedAndUnresolvableNodes"] == {"a": said, "stranger": said}, "no preemption cures a quota"


def test_a_whole_card_by_default_is_judged_when_its_card_is_known(stage: Any) -> None:
    stage.node("a", mem=16000)
    door(stage)(Added(quota(mem=8000)))
    pod = stage.pod("p", gpu=1)
    assert admit(stage, pod)[0]
    assert "asked 16000, limit 8000" in stage.filter(pod, "a")["FailedAndUnresolvableNodes"]["a"]


def test_quotas_that_are_not_told_again_are_gone(stage: Any) -> None:
    eased: list[str] = []
    told = door(stage, eased)
    told(Added(quota("q", mem=1)))
    told(Added(quota("r", mem=2)))
    told.begin()
    told(Modified(quota("r", mem=2)))
    told(Synced(1, "1"))
    assert list(stage.ledger.quotas.names()) == [("default", "r")]
    told(Deleted("default", "r", "u"))
    told(Modified(quota("r", cpu=2)))
    assert stage.ledger.quotas.budgets("default") == ()
    assert eased == ["default"] * 4
    assert stage.ledger.recount() == []


def test_use_and_limit_are_metrics_also_where_nothing_is_limited(stage: Any) -> None:
    stage.node("a", mem=16000)
    door(stage)(Added(quota(mem=8000)))
    stage.filter(stage.pod("p", gpu=1, gpumem=3000, gpucores=20), "a")
    sheet = Sheet((QUOTA_USED, QUOTA_LIMIT))
    sheet.put("", 0, quota_samples(stage.ledger.quotas, stage.engine.vendors))
    lines = sheet.render().decode().splitlines()
    assert (
        'hami_resource_quota_used{zone="vGPU",namespace="default",quota_name="nvidia.com/gpumem",limit="8000"} 3000'
        in [line.removesuffix(".0") for line in lines]
    )
    assert any("gpucores" in line and 'limit=""' in line and line.split()[-1].startswith("20") for line in lines)
    assert [line.split("{")[0] for line in lines].count("hami_resource_quota_limit") == 1


async def test_a_pod_that_waits_for_its_quota_is_woken_wherever_there_is_room(stage: Any) -> None:
    stage.node("a", mem=8000)
    stage.node("b", mem=16000)
    waker = Waker(stage.engine, stage.api, lambda: 1.0)
    door(stage)(Added(quota(mem=8000)))
    pods = PodDoor(stage.ledger, stage.engine.vendors, stage.engine.waiting, stage.gate, waker.freed, eased=waker.eased)
    held = stage.pod("held", gpu=1, gpumem=8000)
    held["spec"]["nodeName"] = "a"
    held["metadata"]["annotations"] = {"hami.io/vgpu-devices-allocated": "GPU-a-0,NVIDIA,8000,0:;"}
    pods(Added(msgspec.convert(held, Pod)))
    assert stage.filter(stage.pod("waits", gpu=1, gpumem=7000), "b")["NodeNames"] == []
    stage.now += 1
    pods(Deleted("default", "held", "uid-held"))
    stage.node("a", problem="gone")
    await waker.round()
    assert [path.rpartition("/")[2] for path, _ in stage.api.patches] == ["waits"]
    assert await waker.round() == 0


async def test_a_higher_limit_wakes_those_it_kept_waiting(stage: Any) -> None:
    stage.node("a", mem=8000)
    waker = Waker(stage.engine, stage.api, lambda: 1.0)
    told = QuotaDoor(stage.ledger, stage.engine.vendors, waker.eased)
    told(Added(quota(mem=1000)))
    assert stage.filter(stage.pod("waits", gpu=1, gpumem=7000), "a")["NodeNames"] == []
    stage.now += 1
    told(Modified(quota(mem=2000)))
    await waker.round()
    assert stage.api.patches == []
    told(Modified(quota(mem=8000)))
    await waker.round()
    assert len(stage.api.patches) == 1


@pytest.mark.looptime
async def test_nothing_is_decided_before_quotas_are_read(stage: Any) -> None:
    store, gate = Store(), Gate()
    kube = MemoryKube(store)
    gate.lead()
    nodes = NodeDoor(stage.ledger, stage.engine.vendors, Handshakes(0.0, lambda: 0.0), gate, lambda _: None)
    pods = PodDoor(stage.ledger, stage.engine.vendors, stage.engine.waiting, gate, lambda _: None)
    watches = Watches(kube, nodes, pods, gate, door(stage))
    body = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {MEM: "8000"}}}
    await kube.create("/api/v1/namespaces/default/resourcequotas", body)
    seen: list[int] = []
    rebuilt = gate.rebuilt
    gate.rebuilt = lambda part: (seen.append(len(stage.ledger.quotas.budgets("default"))), rebuilt(part))  # type: ignore[method-assign, assignment, return-value, func-returns-value]
    running = asyncio.create_task(watches.run())
    await asyncio.sleep(5)
    assert gate.closed is None
    assert seen == [1, 1]
    running.cancel()
