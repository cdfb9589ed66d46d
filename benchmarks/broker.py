"""What the agent's broker costs with many clients: registering, idling, telling of use once a second.

    python -m benchmarks.broker [--clients 1000] [--seconds 15] [--json]

The broker runs in a process of its own with its look from outside, the clients are connections of this one; it takes
each for another process, and a stand-in for NVML shows each of those on the card.
"""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import click
import uvloop

from benchmarks.proc import cpu_s, rss_mb
from benchmarks.report import Figure, show
from hami.agent.broker import door, porter, server
from hami.agent.broker.door import Peer
from hami.agent.broker.look import Look
from hami.agent.broker.tenants import Tenant
from hami.model.ask import PodRef
from hami.model.ids import PodUid
from hami.vendors.nvidia.nvml import Nvml, Process, ProcessLoad
from hami.vendors.nvidia.worker import Worker
from hami.wire.broker import MAX_BYTES, Hello, Usage, encode
from hami.wire.policy import CardLimit, LibraryPolicy
from hami.wire.policy import encode as policy_text

GRANTS = 10
CARD = "GPU-00000000-0000-4000-8000-000000000000"


def serve(root: Path) -> None:
    """The broker's process."""
    card = Shown()
    setattr(porter, "peer", lambda connection: Peer(card.another(), door.peer(connection).uid))  # noqa: B010 - as a test would
    setattr(porter, "witness", lambda who: os.pidfd_open(os.getpid()))  # noqa: B010 - a descriptor a client, as they have
    tenants = [Tenant(one.name, PodRef("default", one.name, PodUid(one.name)), "main") for one in root.iterdir()]
    broker = server.Broker(lambda: tenants, lambda key: root / key)
    look = Look(broker, cast("Nvml", card), Worker("processes"), tell=lambda *_: None)

    async def both() -> None:
        await asyncio.gather(broker.run(), look.run())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `hami agent` does
        runner.run(both())


class Shown:
    """What the look asks of NVML: every client is on the card, holds a little and is busy now and then."""

    def __init__(self) -> None:
        self._pids: list[int] = []

    def another(self) -> int:
        self._pids.append((1 << 22) + len(self._pids))
        return self._pids[-1]

    def device_by_uuid(self, uuid: str) -> str:
        return uuid

    def processes(self, _: str) -> tuple[Process, ...]:
        return tuple(Process(pid, 1 << 20) for pid in tuple(self._pids))

    def process_loads(self, _: str, since_us: int) -> tuple[ProcessLoad, ...]:
        return tuple(ProcessLoad(pid, since_us + 1, 1, 1) for pid in tuple(self._pids))


def grants(root: Path) -> list[Path]:
    """The folders of containers with a slice each."""
    text = policy_text(LibraryPolicy(container="bench/main", cards=(CardLimit(CARD, 1000, 10),)))
    made = [root / f"t{number}" for number in range(GRANTS)]
    for folder in made:
        (folder / "broker").mkdir(parents=True)
        (folder / "policy").write_text(text)
    return made


def register(folders: list[Path], count: int) -> list[socket.socket]:
    clients = []
    for number in range(count):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(30)
        client.connect(str(folders[number % GRANTS] / "broker/sock"))
        client.send(encode(Hello(1, 2, 3, "bench")))
        clients.append(client)
    for client in clients:
        client.recv(MAX_BYTES)
        client.recv(MAX_BYTES)
    return clients


def tell(clients: list[socket.socket], seconds: int) -> None:
    begun = time.monotonic()
    for second in range(seconds):
        packet = encode(Usage(0, (second,) * 7, second, second, second, second))
        for client in clients:
            client.send(packet)
        time.sleep(max(0.0, begun + second + 1 - time.monotonic()))


@click.command()
@click.option("--clients", default=1000, show_default=True)
@click.option("--seconds", default=15, show_default=True, help="How long each state is watched.")
@click.option("--json", "as_json", is_flag=True)
def main(clients: int, seconds: int, as_json: bool) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(4096, clients * 2), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with tempfile.TemporaryDirectory(prefix="hami-", dir="/tmp") as folder:
        places = grants(Path(folder))
        code = f"from pathlib import Path; from benchmarks.broker import serve; serve(Path({folder!r}))"
        with subprocess.Popen([sys.executable, "-c", code]) as broker:
            try:
                while not all((place / "broker/sock").exists() for place in places):
                    time.sleep(0.05)
                figures = measure(broker.pid, places, clients, seconds)
            finally:
                broker.kill()
    show(f"the broker with {clients} clients", figures, as_json=as_json)


def measure(pid: int, places: list[Path], count: int, seconds: int) -> list[Figure]:
    before, begun, spent = rss_mb(pid), time.monotonic(), cpu_s(pid)
    clients = register(places, count)
    figures = [
        Figure("register_s", time.monotonic() - begun, "s", "registering all"),
        Figure("register_cpu_s", cpu_s(pid) - spent, "s", "processor time of that"),
        Figure("memory_mb", rss_mb(pid) - before, "MB", "memory for them"),
    ]
    spent = cpu_s(pid)
    time.sleep(seconds)
    figures.append(Figure("idle_percent", 100 * (cpu_s(pid) - spent) / seconds, "% of a core", "all idle", 1.0))
    spent = cpu_s(pid)
    tell(clients, seconds)
    figures.append(
        Figure("telling_percent", 100 * (cpu_s(pid) - spent) / seconds, "% of a core", "all telling once a second")
    )
    for client in clients:
        client.close()
    return figures


if __name__ == "__main__":
    main()
