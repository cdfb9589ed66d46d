"""The scheduler's HTTPS edge over a filled ledger, without a cluster: the server of `benchmarks.filter`.

    python -m benchmarks.serving --nodes 5000 --cards 8 --pods 50000 --tls FOLDER

Prints ``ready PORT RSS_MB`` and serves until its standard input ends.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import click
import uvloop

from benchmarks.cluster import fill
from benchmarks.proc import rss_mb
from hami.config.schema import DeviceConfig
from hami.ledger.cluster import Ledger
from hami.model.ask import Policies
from hami.observe.metrics import registry
from hami.scheduler.edge.connections import BoundedServer, limits_of
from hami.scheduler.edge.listener import Listener
from hami.scheduler.edge.routes import MIB, extender_routes
from hami.scheduler.edge.serve import Edge, health_pages
from hami.scheduler.edge.tls import server_context
from hami.scheduler.engine import Engine
from hami.scheduler.gate import NODES, PODS, Gate
from hami.scheduler.held.narrate import Narrator
from hami.scheduler.held.waiting import Waiting
from hami.scheduler.loop.between import Between
from hami.scheduler.meters import Meters
from hami.scheduler.verbs.bind import Binder
from hami.vendors.table import load

HOLD = 1.0
"""Seconds a slice is held: nobody binds here, and the cluster must stay half full."""


def engine_of(nodes: int, cards: int, pods: int) -> Engine:
    """A replica that leads, its ledger half full."""
    ledger = Ledger()
    fill(ledger, nodes, cards, pods, 0.5)
    gate = Gate()
    gate.rebuilt(NODES)
    gate.rebuilt(PODS)
    gate.lead()
    return Engine(
        ledger=ledger,
        vendors=load(DeviceConfig()),
        policies=Policies(),
        gate=gate,
        waiting=Waiting(),
        meters=Meters(registry()),
        narrator=Narrator(),
        clock=time.monotonic,
        hold=HOLD,
    )


async def serve(engine: Engine, between: Between, tls: Path) -> None:
    binder = Binder(engine, None, time.time, 10.0)  # type: ignore[arg-type]  # nobody binds here
    routes = extender_routes(engine, binder, 128 * MIB)
    edge = Edge(
        routes,
        health_pages(engine.gate),
        engine.meters,
        clients=frozenset({"system:kube-scheduler"}),
        body_timeout=30.0,
        answered=between.answered,
    )
    context = server_context(str(tls / "server.crt"), str(tls / "server.key"), str(tls / "ca.crt"))
    listener = Listener(BoundedServer(edge, limits_of(routes), 1024, lambda: None), context, 1024)
    await listener.open("127.0.0.1", 0)
    print("ready", listener.port, rss_mb(os.getpid()), flush=True)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not ended.done():
        await asyncio.wait({ended}, timeout=1.0)
        engine.ledger.expire(engine.clock())
        between.idle()
    await listener.cleanup()


@click.command()
@click.option("--nodes", default=5000)
@click.option("--cards", default=8)
@click.option("--pods", default=50_000)
@click.option("--tls", required=True, type=click.Path(path_type=Path))
def main(nodes: int, cards: int, pods: int, tls: Path) -> None:
    """Serve /filter over HTTPS from a filled ledger."""
    engine = engine_of(nodes, cards, pods)
    between = Between(engine.ledger)
    between.settle()
    engine.ledger.make_ready()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `hami scheduler` does
        runner.run(serve(engine, between, tls))


if __name__ == "__main__":
    main()
