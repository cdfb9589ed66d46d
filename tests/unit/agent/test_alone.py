"""One agent for one state folder, whoever ends how; a folder that cannot be held stops nobody."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from hami.agent.alone import alone
from hami.model.errors import Unavailable

HOLDS = """
import asyncio, sys
from pathlib import Path
from hami.agent.alone import alone
async def main():
    async with alone(Path(sys.argv[1]), 0):
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_second_agent_is_told_so_and_gets_the_folder_when_the_first_has_gone(tmp_path):
    folder = tmp_path / "state"
    async with alone(folder):
        with pytest.raises(Unavailable, match=f"another hami agent has {folder}"):
            async with alone(folder, 0):
                pass
    async with alone(folder, 0):
        pass


async def test_who_comes_while_the_first_is_stopping_waits_for_it(tmp_path):
    first = alone(tmp_path)
    await first.__aenter__()
    second = asyncio.ensure_future(alone(tmp_path, 30).__aenter__())
    await asyncio.sleep(0.05)
    assert not second.done()
    await first.__aexit__(None, None, None)
    await asyncio.wait_for(second, 30)


async def test_one_that_was_killed_holds_nothing(tmp_path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert await process.stdout.readline() == b"held\n"
    with pytest.raises(Unavailable):
        async with alone(tmp_path, 0):
            pass
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with alone(tmp_path, 0):
        pass
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing is left behind


async def test_a_folder_that_cannot_be_made_is_told_and_the_agent_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    entered = False
    async with alone(Path(tmp_path / "file/state"), 0):
        entered = True
    assert entered
    assert [one.message for one in caplog.records] == ["the state folder cannot be held"]
