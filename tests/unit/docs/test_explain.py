"""The page on explanations names every field of both answers, and what each change is called; schemas for programs are
those of the types, and real answers keep to them."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import Struct
from tests.unit.cli.test_look import half_full

from hami.cli.look.relief import NodeCards, Report
from hami.cli.main import hami
from hami.ledger.survey import Refused
from hami.plan.advice.explain import CardUse, CardVerdict, Explanation
from hami.plan.advice.fixes import Change, Fix
from hami.plan.advice.fragmentation import Fragmentation, Room
from hami.plan.advice.free import Stuck
from hami.plan.advice.moves import Move
from hami.scheduler.api.answers import Explained, Fragmented
from hami.wire import snapshot

ROOT = Path(__file__).resolve().parent.parent.parent.parent
PAGE = ROOT / "docs/reference/explain.md"
TOOL = runpy.run_path(str(ROOT / "tools/schemas.py"))
SCHEMAS = TOOL["SCHEMAS"]
QUOTED = re.findall(r"`([^`\n]+)`", PAGE.read_text())
WORDS = {word for quoted in QUOTED for word in re.split(r"[^a-z_]+", quoted)}


@pytest.mark.parametrize(
    "kind",
    [Explained, Refused, Explanation, CardVerdict, CardUse, Fix, Fragmented, Report, Fragmentation, Room, Stuck, Move,
     NodeCards],
)  # fmt: skip
def test_each_field_stands_on_the_page(kind: type[Struct]) -> None:
    assert [field for field in kind.__struct_fields__ if field not in WORDS] == []


def test_each_change_is_told_as_it_is_called() -> None:
    assert [change.value for change in Change if change.value not in QUOTED] == []


def schemas() -> dict[str, Any]:
    return {name: json.loads((PAGE.parent / name).read_text()) for name in SCHEMAS}


def test_schemas_are_those_of_the_types() -> None:
    for name, kind in SCHEMAS.items():
        assert (PAGE.parent / name).read_text() == TOOL["text"](kind), f"{name}: run tools/schemas.py"


def test_each_field_of_each_part_stands_on_the_page() -> None:
    parts = [(title, part) for schema in schemas().values() for title, part in schema["$defs"].items()]
    assert len(parts) > 20
    missing = {title: set(part.get("properties", ())) - WORDS for title, part in parts}
    assert {title: fields for title, fields in missing.items() if fields} == {}


def faults(value: object, kind: Any, schema: Any, path: str = "$") -> list[str]:
    """Where `value` is not of `kind`, as far as these schemas go; a field that the schema has not is a fault too."""
    if "$ref" in kind:
        return faults(value, schema["$defs"][kind["$ref"].rpartition("/")[2]], schema, path)
    if "anyOf" in kind:
        tried = [faults(value, one, schema, path) for one in kind["anyOf"]]
        return [] if [] in tried else min(tried, key=len)
    if "enum" in kind:
        return [] if value in kind["enum"] else [f"{path}: {value!r} is none of {kind['enum']}"]
    if isinstance(value, dict) and kind["type"] == "object":
        known = kind.get("properties") or dict.fromkeys(value, kind.get("additionalProperties"))
        found = [f"{path}.{key}: not in the schema" for key in value.keys() - known.keys()]
        found += [f"{path}.{key}: missing" for key in set(kind.get("required", ())) - value.keys()]
        return found + [
            one for key in value.keys() & known for one in faults(value[key], known[key], schema, f"{path}.{key}")
        ]
    if isinstance(value, list) and kind["type"] == "array":
        return [one for n, item in enumerate(value) for one in faults(item, kind["items"], schema, f"{path}[{n}]")]
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    right = kind["type"] in types and isinstance(value, types[kind["type"]])
    return [] if right and isinstance(value, bool) == (kind["type"] == "boolean") else [f"{path}: {value!r}"]


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    (tmp_path / "cluster.json").write_bytes(snapshot.encode(half_full()))
    return str(tmp_path / "cluster.json")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("explain pod team/waits", "explained"),
        ("explain pod team/p0", "explained"),
        ("fit --gpu 2 --gpumem 1000", "explained"),
        ("fit --gpumem 1000 --type T4", "explained"),
        ("fit --gpumem 1000 --annotation hami.io/node-scheduler-policy=pack", "explained"),
        ("frag", "fragmentation"),
        ("frag --gpu 2", "fragmentation"),
    ],
)
def test_real_answers_keep_to_their_schema(cluster: str, words: str, name: str) -> None:
    done = CliRunner().invoke(hami, [*words.split(), "--snapshot", cluster, "-o", "json"])
    schema = schemas()[f"{name}.schema.json"]
    answer = json.loads(done.stdout)
    assert faults(answer, schema, schema) == []
    assert faults({**answer, "nodes": "many"}, schema, schema) == ["$.nodes: 'many'"]
    assert faults({**answer, "more": 1}, schema, schema) == ["$.more: not in the schema"]
    assert faults({}, schema, schema) != []
