"""`hami record` ends at once where it cannot begin, and goes on through whatever comes later."""

import asyncio
import errno
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hami.cli.look import recording
from hami.cli.main import hami
from hami.kube.client import Kube
from hami.kube.config import load
from hami.kube.errors import Forbidden
from hami.model.ask import Policies
from hami.model.errors import HamiError, Unavailable
from hami.sim.apiserver.server import ApiServer
from hami.wire import record


def test_a_moment_has_no_length() -> None:
    done = CliRunner().invoke(hami, ("record", "--snapshot", "--for", "3"))
    assert (done.exit_code, "--for counts for nothing beside --snapshot" in done.output) == (2, True)


class Api:
    """An API server that answers the first pages asked with these faults, None is an answer."""

    def __init__(self, *faults: HamiError | None) -> None:
        self._faults = list(faults)
        self.asked: list[tuple[str, Any]] = []

    async def page(self, path: str, _type: type, params: Any) -> None:
        self.asked.append((path, params))
        fault = self._faults.pop(0)
        if fault is not None:
            raise fault


@pytest.mark.parametrize(
    "faults",
    [
        (Unavailable("API server: connection refused"),),
        (Forbidden(403, "Forbidden", "nodes is forbidden"),),
        (None, Forbidden(403, "Forbidden", "pods is forbidden")),
    ],
)
async def test_who_may_not_read_or_reaches_nobody_is_told_at_once(faults: tuple[HamiError | None, ...]) -> None:
    lines: list[record.Line] = []
    with pytest.raises(HamiError, match=str(faults[-1])):
        await recording.stream(Api(*faults), (), Policies(), lines.append)  # type: ignore[arg-type]
    assert lines == []


async def test_once_it_has_begun_it_follows_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[str] = []

    async def follow(_kube: Any, path: str, *_: Any) -> None:
        followed.append(path)

    monkeypatch.setattr(recording, "follow", follow)
    lines: list[record.Line] = []
    api = Api(None, None)
    await recording.stream(api, (), Policies(), lines.append)  # type: ignore[arg-type]
    assert api.asked == [("/api/v1/nodes", {"limit": 1}), ("/api/v1/pods", {"limit": 1})]
    assert (followed, [type(line) for line in lines]) == (["/api/v1/nodes", "/api/v1/pods"], [record.Start])


@pytest.mark.parametrize("number", [1, 2])
async def test_a_disk_that_is_full_is_told_as_that_whenever_it_is(tmp_path: Path, number: int) -> None:
    lines: list[record.Line] = []

    def write(line: record.Line) -> None:
        lines.append(line)
        if len(lines) == number:
            raise OSError(errno.ENOSPC, "No space left on device")

    async with ApiServer() as server, Kube(load(str(server.kubeconfig(tmp_path / "config")))) as kube:
        async with asyncio.timeout(30):
            with pytest.raises(OSError, match="No space left"):
                await recording.stream(kube, (), Policies(), write)
    assert len(lines) == number


@asynccontextmanager
async def recorder(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", "hami", "record", *words]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110  another process does it
            await asyncio.sleep(0.02)


@pytest.mark.realtime
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_a_record_ends_well_by_ctrl_c_and_by_a_kill(tmp_path: Path, sign: int) -> None:
    place = tmp_path / "day.jsonl"
    async with ApiServer() as server:
        kubeconfig = str(server.kubeconfig(tmp_path / "config"))
        async with recorder("--out", str(place), "--kubeconfig", kubeconfig) as process:
            await until(lambda: place.exists() and b"synced" in place.read_bytes())
            process.send_signal(sign)
            _, said = await process.communicate()
    assert (process.returncode, said) == (0, b"2 lines\n")
    assert [type(line) for line in record.decode(place.read_bytes().splitlines(True))] == [record.Start, record.Synced]


@pytest.mark.realtime
async def test_a_snapshot_that_is_stopped_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    """The server takes the question and never answers."""
    place, asked = tmp_path / "cluster.json", asyncio.Event()
    place.write_text("yesterday's")

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        cluster = {"name": "c", "cluster": {"server": address}}
        context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
        user = {"name": "c", "user": {"token": "t"}}
        text = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
        (tmp_path / "config").write_text(json.dumps(text))
        words = ("--snapshot", "--out", str(place), "--kubeconfig", str(tmp_path / "config"))
        async with recorder(*words) as process:
            async with asyncio.timeout(30):
                await asked.wait()
            process.send_signal(signal.SIGINT)
            await process.communicate()
    assert (process.returncode, place.read_text()) == (130, "yesterday's")
