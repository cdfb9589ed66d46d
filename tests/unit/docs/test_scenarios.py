"""The page of scenarios says which test shows each: all of them are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent.parent
PAGE = TESTS.parent / "docs/reference/scenarios.md"
NAMED = re.compile(r"`((?:unit|flow|node|native)/[\w/]+\.py)::(\w+)`")
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| ---")]


def named_in(file: Path) -> set[str]:
    """Functions and classes at the top of a test file, and names that are given there."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(PAGE.read_text()))))
def test_each_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert name in named_in(TESTS / file)


@pytest.mark.parametrize("row", [row for row in ROWS if row != "| scenario | test |"])
def test_each_scenario_names_its_test_or_says_why_there_is_none(row: str) -> None:
    scenario, shown = (cell.strip() for cell in row.strip("|").split(" | "))
    assert scenario
    assert NAMED.search(shown) or re.match(r"not built: \w{2,}", shown), row


def test_all_chapters_of_the_inventory_are_there() -> None:
    chapters = [line.partition(".")[0] for line in PAGE.read_text().splitlines() if line.startswith("## ")]
    assert chapters == [f"## {number}" for number in range(1, 13)]
