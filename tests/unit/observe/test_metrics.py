"""The metrics page: our cached families and the process's own, as Prometheus parses them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from hami import __version__
from hami.observe import exposition
from hami.observe.exposition import Family, Sheet, sample_line
from hami.observe.metrics import page, registry

LIMIT = Family("hami_gpu_memory_limit_bytes", "Memory of a card.", constant=(("zone", "vGPU"),))
SHARED = Family("hami_gpu_shared_count", "Slices on a card.")


def parsed(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        family.name: [(sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text.decode())
    }


def test_a_sheet_shows_the_lines_of_all_keys_under_one_head() -> None:
    sheet = Sheet([LIMIT, SHARED])
    sheet.put("n1", 1, [(LIMIT, {"node": "n1"}, 8e9), (SHARED, {"node": "n1"}, 2)])
    sheet.put("n2", 1, [(LIMIT, {"node": "n2"}, 4e9)])
    assert sheet.render() == (
        b"# HELP hami_gpu_memory_limit_bytes Memory of a card.\n"
        b"# TYPE hami_gpu_memory_limit_bytes gauge\n"
        b'hami_gpu_memory_limit_bytes{zone="vGPU",node="n1"} 8000000000\n'
        b'hami_gpu_memory_limit_bytes{zone="vGPU",node="n2"} 4000000000\n'
        b"# HELP hami_gpu_shared_count Slices on a card.\n"
        b"# TYPE hami_gpu_shared_count gauge\n"
        b'hami_gpu_shared_count{node="n1"} 2\n'
    )


def test_a_key_is_replaced_as_a_whole_and_dropped_without_a_trace() -> None:
    sheet = Sheet([LIMIT, SHARED])
    sheet.put("n1", 1, [(LIMIT, {}, 1), (SHARED, {}, 1)])
    assert sheet.fresh("n1", 1)
    sheet.put("n1", 2, [(SHARED, {}, 3)])
    assert not sheet.fresh("n1", 1)
    assert "hami_gpu_memory_limit_bytes" not in parsed(sheet.render())
    sheet.put("n2", 1, [(SHARED, {}, 1)])
    sheet.keep_only(["n2"])
    assert not sheet.fresh("n1", 2)
    sheet.drop("n2")
    assert sheet.render() == b""


def test_a_family_of_another_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="hami_gpu_shared_count"):
        Sheet([LIMIT]).put("n1", 1, [(SHARED, {}, 1)])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e")))
def test_any_label_survives_prometheus_reading(text: str) -> None:
    line = sample_line(LIMIT, {"node": text}, 1)
    assert parsed(line.encode())["hami_gpu_memory_limit_bytes"] == [({"zone": "vGPU", "node": text}, 1.0)]


@given(st.floats())
def test_any_number_survives_prometheus_reading(number: float) -> None:
    ((_, value),) = parsed(sample_line(SHARED, {}, number).encode())["hami_gpu_shared_count"]
    assert value == number or (math.isnan(value) and math.isnan(number))


def test_the_page_holds_the_build_and_the_process_and_the_sheets() -> None:
    own = registry()
    Counter("hami_things", "Things.", registry=own).inc()
    sheet = Sheet([SHARED])
    sheet.put("n1", 1, [(SHARED, {}, 2)])
    families = parsed(page(own, [sheet]))
    ((labels, value),) = families["hami_build_info"]
    assert (labels["version"], value) == (__version__, 1.0)
    assert set(labels) == {"version", "revision", "build_date", "python_version", "compiler", "platform"}
    assert families["hami_gpu_shared_count"] == [({}, 2.0)]
    assert "process_resident_memory_bytes" in families
    assert "hami_things" in families


def test_forty_thousand_cards_render_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes 5 ms: made anew, their lines took 10 s."""
    families = [Family(f"hami_f{number}", "f") for number in range(8)]
    sheet = Sheet(families)
    for node in range(5000):
        sheet.put(f"n{node}", 1, [(family, {"node": f"n{node}"}, 1) for family in families])
    monkeypatch.setattr(exposition, "sample_line", None)
    assert sheet.render().count(b"\n") == 8 * (2 + 5000)
