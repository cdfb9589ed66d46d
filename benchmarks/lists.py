"""Pod lists with other shares of the same pods, to judge a placement policy by what it was not made for.

`python -m benchmarks.lists FOLDER OUT` draws the lists below from the openb trace in FOLDER and writes them to OUT
beside its nodes, so that `python -m benchmarks.packing OUT` replays them; another one with
`--list NAME=without,sharing,one,several,typed`. A pod keeps its size, CPU, memory and life time; only how many there
are of each class changes, and how many want a model. Which one is drawn from the pods of the class that want any.
"""

import argparse
import csv
import random
import shutil
import sys
from pathlib import Path

from msgspec import Struct

from benchmarks.packing import NODES, PODS

Row = dict[str, str]
"""A line of a pod list, by the name of its column."""

PLAIN, TYPED = "default", "gpuspec33"
"""The lists drawn from: the trace itself, and the one in which most pods want a model."""


class Mix(Struct, frozen=True):
    """Pods of each class, and the part of those with cards that want a model."""

    without: int
    sharing: int
    one: int
    several: int
    typed: float = 0.0


LIKE_PUBLISHED = {
    "cpu050": Mix(375, 3078, 3911, 75),
    "cpu200": Mix(1768, 3078, 3911, 75),
    "gpushare60": Mix(1088, 5233, 1801, 30),
    "gpuspec20": Mix(1088, 3078, 3911, 75, 0.204),
    "gpuspec25": Mix(1088, 3078, 3911, 75, 0.249),
    "multigpu30": Mix(1088, 3078, 3911, 431),
    "multigpu40": Mix(1088, 3078, 3911, 669),
}
"""The shares of the seven published lists that are not in the trace's folder here, with pods of our own drawing."""
MIXED = {
    "cpu300": Mix(3030, 3078, 3911, 75),
    "gpushare20": Mix(1088, 2324, 4653, 87),
    "cpu-share-typed": Mix(2000, 5000, 1800, 60, 0.25),
    "cpu-several": Mix(2400, 3078, 3911, 300),
    "several-typed": Mix(1088, 3078, 3911, 431, 0.35),
    "share-typed": Mix(1088, 7064, 0, 0, 0.3),
    "whole": Mix(1088, 500, 5500, 80),
    "few-cpu-several": Mix(300, 2000, 4000, 600),
}
"""Shares that no published list has, several of them moved at once."""
LISTS = LIKE_PUBLISHED | MIXED


def drawn(plain: list[Row], typed: list[Row], mix: Mix, seed: int) -> list[Row]:
    """A list of `mix`. Of a class all pods are taken before one is taken twice."""
    rng = random.Random(seed)
    wants = {kind: [row["gpu_spec"] for row in typed if kind == kind_of(row) and row["gpu_spec"]] for kind in KINDS}
    found = []
    for kind in KINDS:
        rows, many = [row for row in plain if kind_of(row) == kind], getattr(mix, kind)
        for row in _taken(rows, many, rng):
            wanted = wants[kind] and rng.random() < mix.typed
            found.append(row | {"gpu_spec": rng.choice(wants[kind]) if wanted else ""})
    rng.shuffle(found)
    return [row | {"name": f"pod-{number:05}"} for number, row in enumerate(found)]


KINDS = ("without", "sharing", "one", "several")


def kind_of(row: Row) -> str:
    """The class of a pod: a field of `Mix`."""
    cards = int(row["num_gpu"])
    if cards == 1:
        return "sharing" if int(row["gpu_milli"]) < 1000 else "one"
    return "several" if cards else "without"


def _taken(rows: list[Row], many: int, rng: random.Random) -> list[Row]:
    whole, rest = divmod(many, len(rows)) if rows else (0, 0)
    return rows * whole + rng.sample(rows, rest)


def main() -> int:
    arguments = _arguments()
    plain, typed = (_read(arguments.folder / PODS.format(name)) for name in (PLAIN, TYPED))
    arguments.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(arguments.folder / NODES, arguments.out / NODES)
    for name, mix in (dict(arguments.list) or LISTS).items():
        with (arguments.out / PODS.format(name)).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(plain[0]))
            writer.writeheader()
            writer.writerows(drawn(plain, typed, mix, arguments.seed))
    return 0


def _read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _list(text: str) -> tuple[str, Mix]:
    name, _, shares = text.partition("=")
    without, sharing, one, several, typed = shares.split(",")
    return name, Mix(int(without), int(sharing), int(one), int(several), float(typed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--list", type=_list, action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
