"""Memory that one process makes and another maps is charged once, as long as anybody has it (simulated driver).

Without NVML the ledger alone says what is held: what NVML would show a second later hides nothing. Makers and borrowers
take their steps when they are told to, so that no test rests on how long one takes.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Container
from .test_ways_round import tried

MIB = 1024
CONTEXT = 480
LIMIT = {"CUDA_DEVICE_MEMORY_LIMIT": "8g"}
KINDS = ("ipc", "fd")
LOOKED = 2.2
"""Seconds in which each watch thread has looked at all there is, once a second, twice: nothing may change by that."""
PATIENCE = 30.0
"""Seconds after which what is to come does not come."""


@pytest.fixture
def blind(blind: dict[str, str]) -> dict[str, str]:
    """No NVML: contexts cost nothing that anybody sees."""
    return LIMIT | blind


class Step:
    """A maker or a borrower, each step of which ends when it is told so."""

    def __init__(self, container: Container, *words: object, **env: str) -> None:
        self.process = container.start("probe", *words, stdin=subprocess.PIPE, **env)
        self.said = self._answer()
        """Its token, or that it has borrowed."""

    def next(self) -> None:
        """Until it has been taken."""
        self._say("next")
        self._answer()

    def held(self) -> int:
        """MiB that its container holds."""
        self._say("held")
        return int(self._answer()["used_mib"])

    def held_meanwhile(self, seconds: float = LOOKED) -> set[int]:
        until, told = time.monotonic() + seconds, {self.held()}
        while time.monotonic() < until:
            told.add(self.held())
            time.sleep(0.02)
        return told

    def until_held(self, mib: int) -> set[int]:
        """All that was held until so much was."""
        until, told = time.monotonic() + PATIENCE, [self.held()]
        while told[-1] != mib and time.monotonic() < until:
            time.sleep(0.02)
            told.append(self.held())
        assert told[-1] == mib
        return set(told)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


@contextmanager
def lent(container: Container, kind: str, after: str = "keep", **env: str) -> Iterator[Step]:
    maker = Step(container, "lend", kind, MIB, after, -1, **env)
    try:
        yield maker
    finally:
        maker.end()


@contextmanager
def borrowed(container: Container, maker: Step, **env: str) -> Iterator[Step]:
    borrower = Step(container, "borrow", maker.said["token"], -1, -1, **env)
    try:
        yield borrower
    finally:
        borrower.end()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_charged_when_its_maker_is_killed_until_it_is_unmapped(
    container: Container, blind: dict[str, str], kind: str
) -> None:
    with lent(container, kind, **blind) as maker, borrowed(container, maker, **blind) as borrower:
        assert borrower.held() == MIB
        maker.end()
        assert borrower.held_meanwhile() == {MIB}
        borrower.next()
        assert borrower.held() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_charged_when_its_maker_frees_it(container: Container, blind: dict[str, str], kind: str) -> None:
    with lent(container, kind, "free", **blind) as maker, borrowed(container, maker, **blind) as borrower:
        assert borrower.held() == MIB
        maker.next()
        assert borrower.held_meanwhile() == {MIB}
        borrower.next()
        assert borrower.held() == 0


def test_what_the_maker_frees_besides_is_not_taken_for_what_is_mapped(
    container: Container, blind: dict[str, str]
) -> None:
    """Both are as large, and both were lent."""
    with lent(container, "fd", "other", **blind) as maker, borrowed(container, maker, **blind) as borrower:
        assert borrower.held() == 2 * MIB
        maker.next()
        borrower.until_held(MIB)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_who_have_it_one_pays_and_the_other_after_it(
    container: Container, blind: dict[str, str], kind: str
) -> None:
    with (
        lent(container, kind, **blind) as maker,
        borrowed(container, maker, **blind) as first,
        borrowed(container, maker, **blind) as second,
    ):
        maker.end()
        assert first.held_meanwhile() | second.held_meanwhile() == {MIB}
        first.next()
        assert second.held_meanwhile() == {MIB}
        second.next()
        assert second.held() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_killed_with_borrowed_memory_leaves_nothing(
    container: Container, blind: dict[str, str], kind: str
) -> None:
    with lent(container, kind, **blind) as maker, borrowed(container, maker, **blind) as borrower:
        borrower.end()
        maker.end()
    assert container.probe("mem", "linear", 256, **blind)["taken_mib"] == 8192


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_container_made_is_charged_by_nvml_within_a_second_of_its_end(
    container: Container, tmp_path: Path, kind: str
) -> None:
    """Give or take what a busy machine makes of a second."""
    elsewhere = LIMIT | {"CUDA_DEVICE_MEMORY_SHARED_CACHE": str(tmp_path / "another")}
    with lent(container, kind, **elsewhere) as maker, borrowed(container, maker, **LIMIT) as borrower:
        assert max(borrower.held_meanwhile()) < MIB
        maker.end()
        borrower.until_held(MIB + CONTEXT)
        assert borrower.held_meanwhile() == {MIB + CONTEXT}


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
    with lent(container, "ipc", **LIMIT) as maker, borrowed(container, maker, **LIMIT) as borrower:
        borrower.until_held(MIB + 2 * CONTEXT)
        maker.end()
        assert min(borrower.until_held(MIB + CONTEXT)) >= MIB + CONTEXT
        assert borrower.held_meanwhile() == {MIB + CONTEXT}
        borrower.next()
        borrower.until_held(CONTEXT)
