"""/metrics: HAMi's families with true values, kept between scrapes, gone with what they describe."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hami.kube.watch import Contact
from hami.ledger.records import PodRecord
from hami.model.ask import PodRef
from hami.model.ids import CardId, Family, NodeName, PodUid
from hami.model.plan import Charge, Slice
from hami.scheduler.metrics import MetricsPage, pieces

MIB = 1 << 20


@pytest.fixture
def page(stage: Any) -> MetricsPage:
    return MetricsPage(stage.engine, stage.gate, {"pods": Contact(cuts=3)})


async def samples(page: MetricsPage) -> dict[tuple[str, str], float]:
    """Value by name and the label that tells samples apart."""
    await page.refresh()
    text = b"".join(pieces(page._sheet.lines())).decode()
    return {
        (one.name, one.labels.get("pod") or one.labels.get("device_uuid") or one.labels["node"]): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def hold(stage: Any, name: str, mem: int, cores: int) -> None:
    slices = (Slice(CardId("GPU-a-0"), Family("NVIDIA"), mem, cores),)
    charge = Charge(CardId("GPU-a-0"), 1, mem, cores)
    ref = PodRef("ns", name, PodUid(f"uid-{name}"))
    stage.ledger.set_pod(PodRecord(ref, NodeName("a"), (slices,), (charge,)))


async def test_cards_and_slices_have_their_true_units(stage: Any, page: MetricsPage) -> None:
    stage.node("a", cards=2, mem=16000)
    hold(stage, "p", 4000, 30)
    found = await samples(page)
    assert found["hami_gpu_memory_limit_bytes", "GPU-a-0"] == 16000 * MIB
    assert found["hami_gpu_memory_allocated_bytes", "GPU-a-0"] == 4000 * MIB
    assert found["hami_gpu_core_limit_ratio", "GPU-a-0"] == 100
    assert found["hami_gpu_core_allocated_ratio", "GPU-a-0"] == 30
    assert found["hami_gpu_shared_count", "GPU-a-0"] == 1
    assert found["hami_node_gpu_overview", "GPU-a-0"] == 4000 * MIB
    assert found["hami_node_gpu_memory_allocated_ratio", "GPU-a-0"] == 0.25
    assert found["hami_gpu_memory_allocated_bytes", "GPU-a-1"] == 0
    assert found["hami_vgpu_memory_allocated_bytes", "p"] == 4000 * MIB
    assert found["hami_vgpu_core_allocated_ratio", "p"] == 30


async def test_series_go_with_the_pod_and_the_node(stage: Any, page: MetricsPage) -> None:
    stage.node("a")
    stage.node("b")
    hold(stage, "p", 4000, 30)
    assert ("hami_vgpu_memory_allocated_bytes", "p") in await samples(page)
    stage.ledger.drop_pod("uid-p")
    stage.ledger.drop_node("b")
    found = await samples(page)
    assert ("hami_vgpu_memory_allocated_bytes", "p") not in found
    assert {key for _, key in found} == {"GPU-a-0"}


async def test_an_excluded_node_is_there_with_its_reason(stage: Any, page: MetricsPage) -> None:
    stage.node("a", problem="the node's agent has not reported")
    assert (await samples(page))["hami_node_excluded", "a"] == 1


async def test_lines_of_unchanged_nodes_are_made_once(stage: Any, page: MetricsPage, monkeypatch: Any) -> None:
    stage.node("a")
    stage.node("b")
    await page.refresh()
    made: list[str] = []
    monkeypatch.setattr("hami.scheduler.metrics.card_samples", lambda state: made.append(state.name) or [])
    await page.refresh()
    assert made == []
    hold(stage, "p", 4000, 30)
    await page.refresh()
    assert made == ["a"]


async def test_what_is_under_way_is_counted(stage: Any, page: MetricsPage) -> None:
    stage.node("a")
    stage.node("out", problem="silent")
    stage.filter(stage.pod("held", gpu=1, gpumem=1000), "a")
    stage.filter(stage.pod("going", gpu=1, gpumem=1000), "a")
    stage.ledger.binding("uid-going", stage.now, 60)
    stage.filter(stage.pod("waits", gpu=1, gpumem=99000), "a")
    hold(stage, "bound", 1000, 0)
    page.count()
    assert stage.figure("hami_scheduler_reservations", state="held") == 1
    assert stage.figure("hami_scheduler_reservations", state="binding") == 1
    assert stage.figure("hami_scheduler_pending_pods") == 1
    assert stage.figure("hami_scheduler_pods") == 1
    assert stage.figure("hami_scheduler_nodes", state="usable") == 1
    assert stage.figure("hami_scheduler_nodes", state="excluded") == 1
    assert stage.figure("hami_scheduler_leading") == 1
    assert stage.figure("hami_scheduler_watch_cuts", resource="pods") == 3


def test_the_page_goes_out_in_pieces() -> None:
    lines = [b"x" * 100_000] * 7
    parts = list(pieces(lines))
    assert len(parts) == 3
    assert b"".join(parts) == b"".join(lines)
