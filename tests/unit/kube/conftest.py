"""A simulated API server and a client that talks to it over a socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hami.kube.client import Kube
from hami.sim.apiserver import ApiServer


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as running:
        yield running


@pytest.fixture
async def kube(server: ApiServer, tmp_path: Path) -> AsyncIterator[Kube]:
    async with await Kube.connect(server.kubeconfig(tmp_path / "config")) as connected:
        yield connected
