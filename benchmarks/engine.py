"""Decisions in one process: the ledger alone, no HTTP.

`python -m benchmarks.engine --nodes 5000 --json` prints `p50_ms`, `p99_ms` and `rss_mb`, of a mix of asks under
binpack and spread. `--policies` measures the same asks under every policy, one after the other. All is as in a
scheduler: names are as they were sent, garbage is collected between decisions (`scheduler.loop.between`), so are the
steps in which `pack` makes its prices, and each host has its CPU; `judge_step_ms` is the longest of these steps.
`first_p99_ms` is of asks of a shape that was not asked before, `again_p99_ms` of the others: of the mix two of five are
new, of a cluster with controllers few. Beside each figure stands how fast the machine was in that minute: `loop_ms`, of
a plain Python loop (`benchmarks.report`).
"""

import argparse
import itertools
import json
import random
import resource
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from benchmarks.cluster import POLICIES, asks, fill, node_names, tell_hosts
from benchmarks.report import loop_ms
from hami.ledger.cluster import Ledger
from hami.ledger.sent import Sent
from hami.model.ask import Ask
from hami.scheduler.loop.between import Between

WARM = 100
"""Asks that are not counted."""


def main() -> None:
    arguments = _arguments()
    before = _rss_mb()
    started = time.perf_counter()
    ledger = Ledger()
    fill(ledger, arguments.nodes, arguments.cards, arguments.pods, arguments.full)
    tell_hosts(ledger, arguments.nodes)
    ledger.judge_later()
    built = time.perf_counter() - started
    between = Between(ledger)
    between.settle()
    ledger.make_ready()
    names = arguments.names or arguments.nodes
    figures = measure(ledger, arguments.nodes, names, arguments.requests, lambda ask: ask, between=between)
    judge_step_ms = 0.0
    for policy in POLICIES if arguments.policies else ():
        if policy == "pack":
            judge_step_ms = judge(ledger)
        between.idle()
        found = measure(ledger, arguments.nodes, names, arguments.requests, POLICIES[policy], between=between)
        figures |= {f"{policy}_{key}": found[key] for key in ("p50_ms", "p99_ms", "loop_ms")}
    if arguments.policies:
        figures["judge_step_ms"] = judge_step_ms
    figures["set_pod_us"] = _set_pod_us(ledger)
    figures |= {
        "nodes": arguments.nodes,
        "names": names,
        "cards": arguments.cards,
        "pods": len(ledger.pods()),
        "build_s": round(built, 2),
        "rss_mb": round(_rss_mb(), 1),
        "ledger_mb": round(_rss_mb() - before, 1),
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:>24}  {value}")


def measure(
    ledger: Ledger, nodes: int, names: int, requests: int, changed: Callable[[Ask], Ask], *, between: Between
) -> dict[str, float]:
    """Decide, reserve and bind or give back; only `decide` and `reserve` are timed. All is given back at the end."""
    random_ = random.Random(3)
    every = node_names(nodes)
    decide: list[float] = []
    first: list[float] = []
    again: list[float] = []
    seen: set[object] = set()
    work: list[float] = []
    reserve: list[float] = []
    placed = refused = 0
    for number, ask in enumerate(map(changed, itertools.islice(asks(), requests + WARM))):
        asked = named(random_.sample(every, names))
        started, worked = time.perf_counter(), time.thread_time()
        decision = ledger.decide(ask, asked)
        decided, worked = time.perf_counter(), time.thread_time() - worked
        if decision.plan is not None:
            ledger.reserve(ask, decision.plan, number, 30)
        done = time.perf_counter()
        if number % 2:
            ledger.release(ask.pod.uid)
        between.answered()
        new = (shape := _shape(ask)) not in seen
        seen.add(shape)
        if number >= WARM:
            decide.append(decided - started)
            (first if new else again).append(decided - started)
            work.append(worked)
            reserve.append(done - decided)
            placed += decision.plan is not None
            refused += len(decision.refusals)
    for hold in list(ledger.reservations()):
        ledger.release(hold.plan.pod.uid)
    return {
        "p50_ms": _percentile(decide, 50),
        "p99_ms": _percentile(decide, 99),
        "loop_ms": loop_ms(),
        "first_p99_ms": _percentile(first, 99),
        "again_p99_ms": _percentile(again, 99),
        "new_percent": round(100 * len(first) / max(len(decide), 1), 1),
        "max_ms": _percentile(decide, 100),
        "cpu_p50_ms": _percentile(work, 50),
        "cpu_p99_ms": _percentile(work, 99),
        "reserve_p99_ms": _percentile(reserve, 99),
        "placed": placed,
        "refused_per_ask": round(refused / requests, 1),
    }


def named(names: list[str]) -> Sequence[str]:
    """As a scheduler has them of a request (`scheduler.verbs.asked`)."""
    listed = msgspec.json.encode(names)
    return Sent.of(listed) or msgspec.json.decode(listed, type=list[str])


def _shape(ask: Ask) -> object:
    """What asks have in common that are decided alike."""
    return tuple((one.kind, one.cards) for one in ask.containers), ask.node_policy, ask.card_policy, ask.cpu_milli


def judge(ledger: Ledger) -> float:
    """Milliseconds of the longest step in which prices are made of what was asked so far."""
    steps, longest = ledger.judge_anew(), 0.0
    while True:
        began = time.perf_counter()
        done = next(steps, "done")
        longest = max(longest, time.perf_counter() - began)
        if done:
            return round(1000 * longest, 4)


def _set_pod_us(ledger: Ledger) -> float:
    """Median time of one change of a bound pod's share."""
    times = []
    for record in list(ledger.pods().values())[:2000]:
        smaller = replace(record, charges=tuple(replace(one, mem_mib=one.mem_mib // 2) for one in record.charges))
        started = time.perf_counter()
        ledger.set_pod(smaller)
        times.append(time.perf_counter() - started)
        ledger.set_pod(record)
    return round(1e6 * sorted(times)[len(times) // 2], 2) if times else 0.0


def _percentile(seconds: list[float], percent: int) -> float:
    ordered = sorted(seconds) or [0.0]
    return round(1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 4)


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--cards", type=int, default=8)
    parser.add_argument("--pods", type=int, default=50_000)
    parser.add_argument("--names", type=int, default=0, help="names asked about; 0 is all nodes")
    parser.add_argument("--full", type=float, default=0.5, help="share of the memory taken before")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--policies", action="store_true", help="under every policy too")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
