"""Simulated agents as a process of their own, for the benchmarks: ``python -m benchmarks.agents --nodes 1000``."""

import asyncio

import click

from hami.kube.client import Kube
from hami.sim.agents import Agents


@click.command()
@click.option("--nodes", required=True, type=int)
@click.option("--qps", type=float, help="Requests a second of all agents together; none is no limit.")
@click.option("--heartbeat", type=float, default=0.0, help="Seconds between renewals of a node's Lease; 0 is never.")
def main(nodes: int, qps: float | None, heartbeat: float) -> None:
    """Acknowledge what is bound to node-00000 and the following, until killed."""

    async def run() -> None:
        async with await Kube.connect(qps=qps) as kube:
            await Agents(kube, [f"node-{number:05}" for number in range(nodes)], heartbeat=heartbeat).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
