"""Private tables of the driver: given, refused and counted as `native/src/intercept/private.txt` says."""

import subprocess
import sys
from pathlib import Path

import pytest

from hami.wire.policy import CardLimit, LibraryPolicy, encode

from .conftest import NATIVE, Container
from .test_vgpu import policy

NEUTRAL, DENIED, UNKNOWN, MISSING = (
    "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9",
    "0ca50b8c-1004-929a-89a7-d0df10e77286",
    "6e6f626f-6479-206b-6e6f-7773206d6521",
    "00000000-0000-0000-0000-000000000000",
)
"""What the simulated driver has, and what it has not."""

ASKS = """
import ctypes, sys, uuid
driver = ctypes.CDLL("libcuda.so.1")
for each in sys.argv[1:]:
    table = ctypes.c_void_p(1)
    told = driver.cuGetExportTable(ctypes.byref(table), uuid.UUID(each).bytes)
    print(told, "table" if table.value else "none")
"""
GIVEN, REFUSED = "0 table", "1 none"


def asked(container: Container, *ids: str, **env: str) -> tuple[list[str], list[str]]:
    """The answers, and what was said about them."""
    command = [sys.executable, "-c", ASKS, *ids]
    limits = container.environment(CUDA_DEVICE_MEMORY_LIMIT="4g", **env)
    done = subprocess.run(command, env=limits, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines(), done.stderr.splitlines()


def told(container: Container, strict: bool) -> str:
    cards = (CardLimit(container.bench.uuid(0), 4000),)
    return encode(LibraryPolicy(container="a", cards=cards, ledger=str(container.ledger), strict=strict))


def test_a_table_that_is_known_is_given_and_any_other_only_where_strict_is_not_set(container: Container) -> None:
    every = (NEUTRAL, DENIED, UNKNOWN, MISSING)
    with policy(container, told(container, strict=False)):
        assert asked(container, *every)[0] == [GIVEN, GIVEN, GIVEN, REFUSED]
    with policy(container, told(container, strict=True)):
        assert asked(container, *every)[0] == [GIVEN, REFUSED, REFUSED, REFUSED]


def test_what_is_refused_gets_the_answer_that_the_driver_has_for_a_table_it_does_not_know(container: Container) -> None:
    with policy(container, told(container, strict=True)):
        denied, missing = asked(container, DENIED, MISSING)[0]
    assert denied == missing


def test_unknown_tables_are_counted_and_told_with_who_asks_and_known_ones_only_on_request(container: Container) -> None:
    _, said = asked(container, NEUTRAL, DENIED, UNKNOWN, UNKNOWN, LIBCUDA_LOG_LEVEL="2")
    assert ["warning" in line and "libffi" in line for line in said] == [True, True, True]
    assert (DENIED in said[0], "number 1" in said[1], "number 2" in said[2]) == (True, True, True)
    assert UNKNOWN in said[1]
    _, all_of_it = asked(container, NEUTRAL, LIBCUDA_LOG_LEVEL="4")
    assert any(NEUTRAL in line and "given" in line for line in all_of_it)
    assert asked(container, NEUTRAL, DENIED, UNKNOWN)[1] == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"{NEUTRAL} charge the runtime", "neutral|deny"),
        (f"{NEUTRAL} neutral", "neutral|deny"),
        (f"{NEUTRAL.upper()} neutral the runtime", "neutral|deny"),
        (f"{NEUTRAL} neutral one\n{NEUTRAL} deny two", "twice"),
    ],
)
def test_a_list_that_is_not_reviewed_makes_no_library(tmp_path: Path, line: str, why: str) -> None:
    """A class for each, a reason for each, and none twice."""
    (tmp_path / "table.txt").write_text("cuInit neutral\n")
    (tmp_path / "private.txt").write_text(line + "\n")
    command = [sys.executable, NATIVE / "tools/intercept.py", "make", tmp_path / "table.txt", tmp_path]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert why in made.stderr
