"""Memory that one process makes and another maps is charged once, as long as anybody has it (simulated driver).

Without NVML the ledger alone says what is held: what NVML would show a second later hides nothing.
"""

import json
import time
from pathlib import Path
from subprocess import Popen

import pytest

from .conftest import Container
from .test_ways_round import tried

MIB = 1024
LIMIT = {"CUDA_DEVICE_MEMORY_LIMIT": "8g"}
KINDS = ("ipc", "fd")
STEP_S = 0.05
"""How often a borrower says what is held."""


@pytest.fixture
def blind(blind: dict[str, str]) -> dict[str, str]:
    """No NVML: contexts cost nothing that anybody sees."""
    return LIMIT | blind


def lender(container: Container, *words: object, **env: str) -> "tuple[Popen[str], str]":
    process = container.start("probe", "lend", *words, **env)
    assert process.stdout is not None
    return process, str(json.loads(process.stdout.readline())["token"])


def end(process: "Popen[str]") -> None:
    process.kill()
    process.communicate()


def held(process: "Popen[str]") -> tuple[list[int], list[int]]:
    """MiB that the container held, as the borrower saw it: while it had the memory, and then."""
    told = [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]
    given = next(at for at, one in enumerate(told) if "returned" in one)
    while_had, then = told[1:given], told[given + 1 :]
    return [one["used_mib"] for one in while_had], [one["used_mib"] for one in then]


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_charged_when_its_maker_is_killed_until_it_is_unmapped(
    container: Container, blind: dict[str, str], kind: str
) -> None:
    maker, token = lender(container, kind, MIB, "keep", 60, **blind)
    borrower = container.start("probe", "borrow", token, 3, 0.2, **blind)
    time.sleep(1)
    end(maker)
    had, then = held(borrower)
    assert set(had) == {MIB}
    assert len(had) > 2 / STEP_S * 0.5
    assert set(then) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_charged_when_its_maker_frees_it(container: Container, blind: dict[str, str], kind: str) -> None:
    maker, token = lender(container, kind, MIB, "free", 1, **blind)
    had, then = held(container.start("probe", "borrow", token, 2, 0.2, **blind))
    maker.communicate(timeout=60)
    assert (set(had), set(then)) == ({MIB}, {0})


def test_what_the_maker_frees_besides_is_not_taken_for_what_is_mapped(
    container: Container, blind: dict[str, str]
) -> None:
    """Both are as large, and both were lent."""
    maker, token = lender(container, "fd", MIB, "other", 1.5, **blind)
    had, _ = held(container.start("probe", "borrow", token, 2.5, 0, **blind))
    maker.communicate(timeout=60)
    assert (had[0], had[-1]) == (2 * MIB, MIB)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_who_have_it_one_pays_and_the_other_after_it(
    container: Container, blind: dict[str, str], kind: str
) -> None:
    maker, token = lender(container, kind, MIB, "keep", 60, **blind)
    first = container.start("probe", "borrow", token, 2, 0.2, **blind)
    second = container.start("probe", "borrow", token, 4, 0.2, **blind)
    time.sleep(1)
    end(maker)
    had, then = held(second)
    assert (set(had), set(then)) == ({MIB}, {0})
    assert set(held(first)[0]) == {MIB}


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_killed_with_borrowed_memory_leaves_nothing(
    container: Container, blind: dict[str, str], kind: str
) -> None:
    maker, token = lender(container, kind, MIB, "keep", 60, **blind)
    borrower = container.start("probe", "borrow", token, 60, 0, **blind)
    assert borrower.stdout is not None
    borrower.stdout.readline()
    end(borrower)
    end(maker)
    assert container.probe("mem", "linear", 256, **blind)["taken_mib"] == 8192


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_container_made_is_charged_by_nvml_within_a_second_of_its_end(
    container: Container, tmp_path: Path, kind: str
) -> None:
    elsewhere = LIMIT | {"CUDA_DEVICE_MEMORY_SHARED_CACHE": str(tmp_path / "another")}
    maker, token = lender(container, kind, MIB, "keep", 60, **elsewhere)
    borrower = container.start("probe", "borrow", token, 4, 0, **LIMIT)
    time.sleep(1.5)
    end(maker)
    had, _ = held(borrower)
    assert had[5] < MIB
    assert min(had[-10:]) >= MIB


TWICE = """
import subprocess, time
cuda = ctypes.CDLL("libcuda.so.1")
start(cuda)
lends = [sys.argv[1], "lend", "ipc", "1024", "keep", "60"]
with subprocess.Popen(lends, stdout=subprocess.PIPE, text=True) as maker:
    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_char * 64)]
    handle = Handle.from_buffer_copy(bytes.fromhex(maker.stdout.readline().split('"')[5]))
    address, again = c_uint64(), c_uint64()
    assert cuda.cuIpcOpenMemHandle_v2(byref(address), handle, 1) == 0
    assert cuda.cuIpcOpenMemHandle_v2(byref(again), handle, 1) == 0 and again.value == address.value
    maker.kill()
    maker.communicate()
time.sleep(1.6)  # the watch of each second has seen it
told = [used()]
for _ in range(2):
    assert cuda.cuIpcCloseMemHandle(address) == 0
    told.append(used())
print(*told)
"""


def test_a_handle_that_is_opened_twice_is_paid_for_once_and_until_it_is_closed_twice(
    container: Container, blind: dict[str, str]
) -> None:
    assert tried(container, TWICE, container.tools.folder / "probe", **blind) == "1024 1024 0"


def test_nvml_and_the_ledger_do_not_charge_it_twice(container: Container) -> None:
    context = 480
    maker, token = lender(container, "ipc", MIB, "keep", 60, **LIMIT)
    borrower = container.start("probe", "borrow", token, 4, 2, **LIMIT)
    time.sleep(1.5)
    end(maker)
    had, then = held(borrower)
    assert min(had[5:]) >= MIB + context
    assert set(had[-10:]) == {MIB + context}
    assert then[-1] == context
