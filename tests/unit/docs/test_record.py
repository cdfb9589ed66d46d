"""The page on snapshots and records names every field of both, and its example is a record."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hami.wire import record
from hami.wire.snapshot import Snapshot

PAGE = (Path(__file__).resolve().parents[3] / "docs/reference/record.md").read_text()
WORDS = {word for quoted in re.findall(r"`([^`\n]+)`", PAGE) for word in re.split(r"[^a-z_]+", quoted)}


@pytest.mark.parametrize("kind", [Snapshot, record.Line])
def test_each_field_of_each_part_stands_on_the_page(kind: Any) -> None:
    parts = msgspec.json.schema(kind)["$defs"]
    assert len(parts) > 10
    missing = {title: set(part.get("properties", ())) - WORDS for title, part in parts.items()}
    assert {title: fields for title, fields in missing.items() if fields} == {}


def test_the_example_on_the_page_is_a_record() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    lines = list(record.decode(example.encode().splitlines(keepends=True)))
    assert [type(line).__name__ for line in lines] == [
        "Start",
        "NodeSeen",
        "Synced",
        "PodArrived",
        "PodBound",
        "PodLeft",
    ]
