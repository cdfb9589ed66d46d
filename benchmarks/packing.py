"""Packing, measured on traces: every list x seed x policy as a replay of its own, a process a core.

`python -m benchmarks.packing FOLDER --out results.jsonl` runs the inflation experiment of the openb lists in
FOLDER (its nodes, `openb_pod_list_*.csv`, and `published_gpu_allocation.csv`); with `--loads 0.9,0.95` a steady
load with departures instead, on every fourth node; with `--compress 2000` the trace's own times, arrivals that much
denser, on a quarter of the nodes that the seed draws. Each result is a line of `--out`, written as it comes; what is
there already is not run again, so a run can be stopped (`--minutes`) and gone on with. `--show` only prints the
tables, `--json` one object.

A policy written `pack:ties` has ties drawn at random, as kube-scheduler does it; `pack:cluster` also leaves pods
without cards to kube-scheduler's least-allocated rule, as in a cluster.
"""

import argparse
import csv
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.paired import compared
from benchmarks.report import console
from hami.cli.commands.simulate import range_of
from hami.sim.traces import experiment, files
from hami.sim.traces.steady import Load
from hami.sim.traces.trace import Machine

NODES, PODS, PUBLISHED = "openb_node_list_gpu_node.csv", "openb_pod_list_{}.csv", "published_gpu_allocation.csv"
COLUMNS = {
    "random": "Random", "dot-product": "DotProd", "gpu-clustering": "GpuClustering",
    "gpu-packing": "GpuPacking", "best-fit": "BestFit", "fgd": "FGD",
}  # fmt: skip
"""Our names of published policies, and theirs."""
PATIENCE = 1800.0
"""Seconds after which a pod gives up where pods leave."""


class Run(Struct, frozen=True):
    """One replay. Without `load` and `compress` it is the inflation experiment."""

    name: str
    policy: str
    seed: int
    load: float = 0.0
    compress: float = 0.0


def replayed(folder: Path, run: Run) -> dict[str, Any]:
    """The replay, in a process of its own; a line of the results."""
    policy, _, where = run.policy.partition(":")
    machines = files.machines(folder / NODES)
    setting = experiment.Setting(
        machines=quarter(machines, run.seed if run.compress else None) if run.load or run.compress else machines,
        jobs=files.jobs(folder / PODS.format(run.name)),
        departures=bool(run.load or run.compress),
        compress=run.compress or 1.0,
        load=Load(run.load) if run.load else None,
        patience=PATIENCE,
        host_jobs="least-allocated" if where == "cluster" else "pack",
        ties="random" if where else "fixed",
    )
    found = experiment.run(setting, policy, run.seed)
    waits = (
        {} if found.waits is None else {"wait": found.waits.mean, "p95": found.waits.p95, "waited": found.waits.waited}
    )
    return {
        "list": run.name, "policy": run.policy, "seed": run.seed, "load": run.load, "compress": run.compress,
        "failed": found.failed, "allocated": found.gpu_allocation_percent, "placed": found.placed,
        "seconds": found.seconds, **waits,
    }  # fmt: skip


def quarter(machines: Sequence[Machine], seed: int | None) -> tuple[Machine, ...]:
    """One of each four nodes that are alike: the first, or with a seed one drawn at random."""
    alike = sorted(machines, key=lambda one: (one.model, one.cards, one.name))
    fours = [alike[at : at + 4] for at in range(0, len(alike), 4)]
    rng = random.Random(seed)
    return tuple(four[0] if seed is None else rng.choice(four) for four in fours)


def main() -> int:
    arguments = _arguments()
    results = read(arguments.out)
    if not arguments.show:
        missing = [run for run in planned(arguments) if run not in results]
        for line in ran(arguments.folder, missing, arguments.workers, arguments.minutes):
            results[run_of(line)] = line
            with arguments.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    found = list(results.values())
    plain, loaded, dense = parted(found)
    figures, steady = summary(plain, published(arguments.folder)), against_pack(loaded, "list", "load")
    replays = against_pack(dense, "list", "compress")
    if arguments.json:
        print(json.dumps({"inflation": figures, "load": steady, "compressed": replays}))
    else:
        show(figures, steady, replays)
    return 0


def planned(arguments: argparse.Namespace) -> list[Run]:
    """The longest first, so that no core is left with one at the end."""
    names = arguments.lists or sorted(
        path.stem.removeprefix("openb_pod_list_") for path in arguments.folder.glob(PODS.format("*"))
    )
    runs = [
        Run(name, policy, seed, load, arguments.compress)
        for load in arguments.loads or [0.0]
        for name in names
        for policy in arguments.policies
        for seed in range_of(arguments.seeds)
    ]
    return sorted(runs, key=lambda run: (-run.load, not run.policy.startswith("pack"), run.policy, run.seed))


def ran(folder: Path, runs: list[Run], workers: int, minutes: float) -> Iterator[dict[str, Any]]:
    """Results as they come; after `minutes` none is started any more, and those that run are given up."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    ends = time.monotonic() + 60 * minutes
    columns = (TextColumn("replays"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProcessPoolExecutor(workers) as pool, Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(runs))
        waiting: set[Future[dict[str, Any]]] = {pool.submit(replayed, folder, run) for run in runs}
        while waiting and time.monotonic() < ends:
            done, waiting = wait(waiting, timeout=ends - time.monotonic(), return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                bar.advance(task)
        if waiting:
            processes = list(pool._processes.values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            console.print(f"{len(waiting)} replays were not finished in {minutes:g} minutes")


def summary(lines: list[dict[str, Any]], known: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    """One entry a list and policy: mean and spread, the published mean, and pack's lead over FGD of the same seeds."""
    found = []
    for name, policy, own in grouped(lines, "list", "policy"):
        values = {line["seed"]: line["allocated"] for line in own}
        fgd = {line["seed"]: line["allocated"] for line in lines if (line["list"], line["policy"]) == (name, "fgd")}
        lead = compared(values, fgd) if policy.startswith("pack") else None
        found.append(
            {
                "list": name, "policy": policy, "seeds": len(values), **spread(list(values.values())),
                "published": known.get((name, COLUMNS.get(policy, ""))), "fgd_published": known.get((name, "FGD")),
                "cpu_s": round(sum(line["seconds"] for line in own) / len(own), 2),
                **({"lead": lead.mean, "p": lead.p} if lead else {}),
            }
        )  # fmt: skip
    return found


def parted(lines: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], ...]:
    """Inflation, steady loads, the trace's own times."""
    kinds: tuple[list[dict[str, Any]], ...] = ([], [], [])
    for line in lines:
        kinds[2 if line.get("compress") else 1 if line["load"] else 0].append(line)
    return kinds


def against_pack(lines: list[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    """One entry for each policy and what is the same in all `by`: means over seeds, and how likely the difference to
    pack is chance."""
    found = []
    for *values, policy, own in grouped(lines, *by, "policy"):
        alike = dict(zip(by, values, strict=True))
        entry: dict[str, Any] = {**alike, "policy": policy, "seeds": len(own)}
        beside = {**alike, "policy": "pack"}.items()
        for name in ("allocated", "wait", "p95", "waited", "failed"):
            entry[name] = round(sum(line[name] for line in own) / len(own), 3)
        for name in ("wait", "failed") if policy != "pack" else ():
            pack = {line["seed"]: line[name] for line in lines if beside <= line.items()}
            more = compared({line["seed"]: line[name] for line in own}, pack)
            entry |= {f"{name}_more": round(more.mean, 3), f"{name}_p": more.p} if more else {}
            entry |= {f"{name}_low": round(more.low, 3), f"{name}_high": round(more.high, 3)} if more else {}
        found.append(entry)
    return found


def grouped(lines: list[dict[str, Any]], *names: str) -> Iterator[tuple[Any, ...]]:
    keys = sorted({tuple(line[name] for name in names) for line in lines})
    for values in keys:
        yield *values, [line for line in lines if tuple(line[name] for name in names) == values]


def spread(values: list[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)) ** 0.5
    return {"mean": round(mean, 3), "sd": round(deviation, 3)}


def published(folder: Path) -> dict[tuple[str, str], float]:
    """Mean of the paper's seeds at the end, by list and policy. Empty where the file is missing."""
    path = folder / PUBLISHED
    if not path.exists():
        return {}
    found: dict[tuple[str, str], list[float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            name = row["workload"].removeprefix("openb_pod_list_")
            found.setdefault((name, row["sc_policy"].partition("-")[2]), []).append(float(row["130"]))
    return {entry: round(sum(values) / len(values), 2) for entry, values in found.items()}


def show(figures: list[dict[str, Any]], loaded: list[dict[str, Any]], dense: list[dict[str, Any]]) -> None:
    shown = Console(width=160)
    if figures:
        heads = ("list", "policy", "seeds", "mean", "sd", "published", "fgd_published", "lead", "p", "cpu_s")
        shown.print(_table("GPU allocated, % at 130 %", heads, figures))
    for title, by, entries in (("Steady load", "load", loaded), ("The trace's own times", "compress", dense)):
        if entries:
            measured = ("list", by, "policy", "seeds", "allocated", "wait", "p95", "waited", "failed")
            more = [f"{name}_{what}" for name in ("wait", "failed") for what in ("more", "low", "high", "p")]
            shown.print(_table(title, (*measured, *more), entries))


def _table(title: str, heads: tuple[str, ...], lines: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for head in heads:
        table.add_column(head)
    for line in lines:
        cells = (line.get(head) for head in heads)
        table.add_row(
            *("" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells)
        )
    return table


def run_of(line: dict[str, Any]) -> Run:
    return Run(line["list"], line["policy"], line["seed"], line["load"], line.get("compress", 0.0))


def read(path: Path) -> dict[Run, dict[str, Any]]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {run_of(line): line for line in lines}


def _words(text: str) -> list[str]:
    return text.split(",")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lists", type=_words, help="default,cpu100: all that are there if not given")
    parser.add_argument("--policies", type=_words, default=["pack", "fgd"])
    parser.add_argument("--seeds", default="42-51")
    pods_leave = parser.add_mutually_exclusive_group()
    pods_leave.add_argument("--loads", type=lambda text: [float(word) for word in text.split(",")])
    pods_leave.add_argument("--compress", type=float, default=0.0, help="the trace's own times, this much denser")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--out", type=Path, default=Path("packing.jsonl"))
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
