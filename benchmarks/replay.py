"""A long replay: placements and departures by the million, with the ledger counted anew on the way.

`python -m benchmarks.replay --nodes NODES.csv --pods PODS.csv [--placements 1000000]` keeps a cluster under a steady
load drawn from a trace; what does not fit is dropped. Every so often it prints how fast it went, the process's memory,
and what the ledger's own recount and a count of the placed jobs find different, which must be nothing. The
arrivals are a stream: memory that grows is the engine's.
"""

import argparse
import heapq
import os
import sys
import time
from pathlib import Path

import numpy as np
from msgspec import Struct

from benchmarks.report import Figure, console, show
from hami.model.ask import NodePolicy
from hami.sim.traces import files
from hami.sim.traces.cluster import Cluster
from hami.sim.traces.fragments import Fragments
from hami.sim.traces.placers import ENGINE, BaselinePlacer, EnginePlacer, Placer, Refused
from hami.sim.traces.steady import Load, arrivals

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
STOPS = 20
"""How often it is looked at."""


class Stop(Struct, frozen=True):
    """One look on the way."""

    placed: int
    left: int
    refused: int
    hours: float
    """Of the replay."""
    cpu_s: float
    rss_mb: float
    running: int
    allocated_percent: float
    differences: int


def main() -> int:
    arguments = _arguments()
    machines, jobs = files.machines(arguments.nodes), files.jobs(arguments.pods)
    cluster = Cluster(machines, NodePolicy(arguments.policy) if arguments.policy in ENGINE else NodePolicy.BINPACK)
    placer: Placer = (
        EnginePlacer(cluster, host_jobs="pack")
        if arguments.policy in ENGINE
        else BaselinePlacer(cluster, arguments.policy, Fragments(cluster, jobs), 1)
    )
    load = Load(arguments.load, longest=3600 * arguments.longest)
    stream = arrivals(jobs, machines, load, arguments.seed)
    stops, ends, placed, left, refused = [], list[tuple[float, str]](), 0, 0, 0
    every, deadline = max(arguments.placements // STOPS, 1), time.monotonic() + 60 * arguments.minutes
    console.print(
        "  placed     left  refused    hours   CPU s  RSS MB  running  allocated  differences", soft_wrap=True
    )
    while placed < arguments.placements and time.monotonic() < deadline:
        job = next(stream)
        while ends and ends[0][0] <= job.arrives:
            cluster.remove(heapq.heappop(ends)[1])
            left += 1
        if isinstance(placer.place(job, job.arrives), Refused):
            refused += 1
            continue
        placed += 1
        heapq.heappush(ends, (job.leaves or 0.0, job.name))
        if placed % every == 0:
            stops.append(look(cluster, placed, left, refused, job.arrives))
            _print(stops[-1])
    stops.append(look(cluster, placed, left, refused, job.arrives))
    while ends:
        cluster.remove(heapq.heappop(ends)[1])
    stops.append(look(cluster, placed, placed, refused, job.arrives))
    _print(stops[-1])
    _show(stops, as_json=arguments.json)
    return 1 if any(stop.differences for stop in stops) else 0


def look(cluster: Cluster, placed: int, left: int, refused: int, now: float) -> Stop:
    cpu_s = time.process_time()
    found = differences(cluster)
    for one in found[:5]:
        console.print(one)
    share = 100 * cluster.allocated() / cluster.gpus
    running = len(cluster.placed)
    return Stop(placed, left, refused, now / 3600, cpu_s, rss_mb(), running, share, len(found))


def differences(cluster: Cluster) -> list[str]:
    """What the ledger's recount finds, and where the jobs that run do not add up to what is taken."""
    found = [*cluster.ledger.recount(), *cluster.overcommitted()]
    cpu = np.array([machine.cpu_milli for machine in cluster.machines])
    cards = 0.0
    for placed in cluster.placed.values():
        cpu[placed.row] -= placed.job.cpu_milli
        cards += cluster.worth(placed.job)
    if not np.array_equal(cpu, cluster.cpu):
        found.append(f"CPU left differs on {np.flatnonzero(cpu != cluster.cpu).tolist()}")
    if abs(cards - cluster.allocated()) > 1e-6:
        found.append(f"jobs take {cards} cards, the ledger has {cluster.allocated()}")
    if len(cluster.ledger.pods()) != sum(placed.job.cards > 0 for placed in cluster.placed.values()):
        found.append(f"the ledger knows {len(cluster.ledger.pods())} pods")
    return found


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB


def _print(stop: Stop) -> None:
    console.print(
        f"{stop.placed:8} {stop.left:8} {stop.refused:8} {stop.hours:8.2f} {stop.cpu_s:7.0f} {stop.rss_mb:7.1f}"
        f" {stop.running:8} {stop.allocated_percent:9.2f}% {stop.differences:12}",
        highlight=False,
        soft_wrap=True,
    )


def _show(stops: list[Stop], *, as_json: bool) -> None:
    last, first = stops[-1], stops[min(1, len(stops) - 1)]
    figures = [
        Figure("placements", last.placed, "", "placements", 1_000_000, at_least=True),
        Figure("departures", last.left, "", "departures"),
        Figure("hours", last.hours, "h", "time replayed", 24, at_least=True),
        Figure("per_second", last.placed / last.cpu_s, "/s", "placements, each with its departure, a second of CPU"),
        Figure("rss_mb", last.rss_mb, "MB", "memory at the end"),
        Figure("rss_grown_mb", stops[-2].rss_mb - first.rss_mb, "MB", "memory grown since a tenth of the way", 10),
        Figure("differences", sum(stop.differences for stop in stops), "", "differences found by counting anew", 0),
    ]
    show("Long replay", figures, as_json=as_json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=Path, required=True)
    parser.add_argument("--pods", type=Path, required=True)
    parser.add_argument("--policy", default="pack")
    parser.add_argument("--placements", type=int, default=1_000_000)
    parser.add_argument("--load", type=float, default=0.95)
    parser.add_argument("--longest", type=float, default=0.5, help="hours; life times are cut to this")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many minutes")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
