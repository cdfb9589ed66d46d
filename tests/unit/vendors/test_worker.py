import asyncio
import threading

import pytest

from hami.vendors.nvidia.worker import Stuck, Worker


async def test_calls_run_in_one_thread_in_their_order() -> None:
    worker = Worker("driver")
    seen: list[int] = []
    names = await asyncio.gather(
        *(worker.run(lambda at=at: (seen.append(at), threading.current_thread().name)[1]) for at in range(5))
    )
    worker.close()
    assert names == ["driver"] * 5
    assert seen == [0, 1, 2, 3, 4]


async def test_a_calls_exception_is_the_callers() -> None:
    worker = Worker("driver")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 7) == 7
    worker.close()


async def test_a_timeout_that_the_call_itself_raises_is_not_taken_for_ours() -> None:
    def late() -> None:
        raise TimeoutError("own")

    worker = Worker("driver")
    with pytest.raises(TimeoutError, match="own"):
        await worker.run(late)
    worker.close()


async def test_a_call_that_hangs_does_not_hold_the_loop_and_is_told() -> None:
    worker = Worker("driver")
    release = threading.Event()
    with pytest.raises(Stuck, match="driver: the driver has not answered for 0 s"):
        await worker.run(release.wait, timeout=0.02)
    with pytest.raises(Stuck):
        await worker.run(lambda: 1, timeout=0.01)
    release.set()
    assert await worker.run(lambda: 2) == 2
    worker.close()


async def test_a_call_that_nobody_waits_for_any_more_is_not_begun() -> None:
    worker = Worker("driver")
    release = threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(worker.run(release.wait))
    second = asyncio.create_task(worker.run(lambda: ran.append(2)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    await first
    await worker.run(lambda: None)
    worker.close()
    assert ran == []
