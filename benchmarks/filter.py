"""How long kube-scheduler waits for /filter: HTTPS with its client certificate, warm, mixed asks, half-full cluster.

    python -m benchmarks.filter --nodes 5000 --cards 8 --names 500|5000 [--json]

The server is a process of its own (`benchmarks.serving`). One request at a time, as
kube-scheduler's serial cycle sends them, then eight at once, then a hundred.
"""

import asyncio
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.cluster import node_names
from benchmarks.pods import pods as mixed
from benchmarks.proc import cpu_s, rss_mb
from benchmarks.report import Figure, console, percentile, show
from hami.lab.pki import Pki

WARM = 200
HUNDRED = 100
HEAD = b"POST /filter HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Connection:
    """A keep-alive connection that sends one request at a time; no client library, so that its cost is not ours."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 22))

    async def post(self, request: bytes) -> float:
        """Seconds from the first byte sent to the last received."""
        began = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        took = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        return took

    def close(self) -> None:
        self._writer.close()


def requests(nodes: int, names: int) -> Iterator[bytes]:
    """Whole requests: each pod with the next `names` nodes of the cluster, as kube-scheduler goes round it."""
    every = node_names(nodes)
    random.Random(5).shuffle(every)
    quoted = [f'"{name}"' for name in every]
    start = 0
    for pod in mixed():
        window = [*quoted, *quoted][start : start + names]
        start = (start + names) % nodes
        body = b'{"Pod":' + pod + b',"Nodes":null,"NodeNames":[' + ",".join(window).encode() + b"]}"
        yield HEAD % len(body) + body


async def measure(port: int, context: ssl.SSLContext, stream: Iterator[bytes], count: int, at_once: int) -> list[float]:
    """Seconds of `count` requests, `at_once` in flight."""
    connections = [await Connection.open(port, context) for _ in range(at_once)]
    ready = [next(stream) for _ in range(count)]
    times: list[float] = []

    async def worker(connection: Connection) -> None:
        while ready:
            times.append(await connection.post(ready.pop()))

    await asyncio.gather(*(worker(connection) for connection in connections))
    for connection in connections:
        connection.close()
    return times


@click.command()
@click.option("--nodes", default=5000, show_default=True)
@click.option("--cards", default=8, show_default=True)
@click.option("--names", default=500, show_default=True, help="Node names a request.")
@click.option("--pods", default=50_000, show_default=True, help="Bound pods in the ledger.")
@click.option("--requests", "count", default=2000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(*, nodes: int, cards: int, names: int, pods: int, count: int, as_json: bool) -> None:
    """Latency of /filter."""
    with tempfile.TemporaryDirectory() as folder:
        pki = Pki(Path(folder))
        server, client = pki.server("server", ["127.0.0.1"]), pki.client("system:kube-scheduler")
        context = ssl.create_default_context(cafile=str(server.authority))
        context.load_cert_chain(client.certificate, client.key)
        words = ["--nodes", nodes, "--cards", cards, "--pods", pods, "--tls", folder]
        command = [sys.executable, "-m", "benchmarks.serving", *map(str, words)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with console.status(f"filling a ledger with {nodes} nodes and {pods} pods"):
                port = int(process.stdout.readline().split()[1])
            with console.status(f"{count} requests of {names} names"):
                stream = requests(nodes, names)
                asyncio.run(measure(port, context, stream, WARM, 1))
                before = cpu_s(process.pid)
                alone = asyncio.run(measure(port, context, stream, count, 1))
                used = cpu_s(process.pid) - before
                crowd = asyncio.run(measure(port, context, stream, count, 8))
                hundred = asyncio.run(measure(port, context, stream, 5 * HUNDRED, HUNDRED))
            resident = rss_mb(process.pid)
            process.stdin.close()
            process.wait(10)
    target = 2.0 if names <= 500 else 5.0
    show(
        f"/filter: {names} of {nodes} nodes x {cards} cards, {pods} pods, {count} requests",
        [
            Figure("p50_ms", percentile(alone, 0.5) * 1000, "ms", "one at a time, median"),
            Figure("p99_ms", percentile(alone, 0.99) * 1000, "ms", "one at a time, 99 %", target),
            Figure("cpu_ms", used / count * 1000, "ms", "CPU of the server a request"),
            Figure("p50_8_ms", percentile(crowd, 0.5) * 1000, "ms", "8 at once, median"),
            Figure("p99_8_ms", percentile(crowd, 0.99) * 1000, "ms", "8 at once, 99 %", target * 8),
            Figure("p50_100_ms", percentile(hundred, 0.5) * 1000, "ms", "100 at once, median"),
            Figure("max_100_ms", max(hundred) * 1000, "ms", "100 at once, the last", target * HUNDRED),
            Figure("rss_mb", resident, "MB", "resident memory of the server", 500),
        ],
        as_json=as_json,
    )


if __name__ == "__main__":
    main()
