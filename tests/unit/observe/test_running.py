"""A program runs until it is told to stop, or until one of its duties fails."""

import asyncio
import os
import resource
import signal

import pytest

from hami.model.errors import Unavailable
from hami.observe.running import allow_descriptors, until_stopped


class Duty:
    """Works for ever, and notes how it ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = False

    async def work(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_every_duty_and_nothing_is_raised(number: signal.Signals) -> None:
    duties = [Duty(), Duty()]
    running = asyncio.ensure_future(until_stopped(duty.work() for duty in duties))
    for duty in duties:
        await duty.begun.wait()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(running, 30)
    assert [duty.ended for duty in duties] == [True, True]


async def test_a_duty_that_fails_ends_the_others_and_is_told_of() -> None:
    duty = Duty()

    async def fail() -> None:
        await duty.begun.wait()
        raise OSError("no disk")

    with pytest.raises(ExceptionGroup) as told:
        await until_stopped([duty.work(), fail()])
    assert [str(one) for one in told.value.exceptions] == ["no disk"]
    assert duty.ended


async def test_a_fault_that_says_what_is_wrong_is_told_as_it_is_from_however_deep() -> None:
    async def fail() -> None:
        raise Unavailable("the driver was replaced")

    async def inner() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    with pytest.raises(Unavailable, match=r"^the driver was replaced$"):
        await until_stopped([Duty().work(), inner()])


async def test_beside_a_fault_of_another_kind_nothing_is_left_out() -> None:
    async def fail(fault: Exception) -> None:
        raise fault

    with pytest.raises(ExceptionGroup) as told:
        await until_stopped([fail(Unavailable("no driver")), fail(OSError("no disk"))])
    assert sorted(str(one) for one in told.value.exceptions) == ["no disk", "no driver"]


@pytest.mark.parametrize(
    ("limits", "wanted", "got"),
    [
        ((1024, 4096), 2560, 2560),
        ((1024, 2048), 2560, 2048),
        ((1024, resource.RLIM_INFINITY), 2560, 2560),
        ((4096, 4096), 2560, None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 2560, None),
    ],
)
def test_descriptors_are_allowed_as_far_as_we_may_and_never_taken(
    limits: tuple[int, int], wanted: int, got: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: told.append((kind, pair)))
    allow_descriptors(wanted)
    assert told == ([] if got is None else [(resource.RLIMIT_NOFILE, (got, limits[1]))])
