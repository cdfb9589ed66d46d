#!/usr/bin/env python3
"""Writes the tables of docs/reference/limits.md from the runs saved beside it; a row shows its latest run.

python3 tests/gpu/tables.py save NUMBER FILE...   keeps what limits.py and broker.py wrote as run NUMBER
python3 tests/gpu/tables.py write                 writes the page anew
python3 tests/gpu/tables.py check                 exits 1 when the page is not what the runs say
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/limits.md"
RUNS = PAGE.parent / "limits-runs"
BEGIN, END = "<!-- tables: from limits-runs, by tests/gpu/tables.py -->\n", "<!-- end of tables -->\n"
TITLES = {
    "names": "Names",
    "routes": "Memory: every route, limit 4 GiB, by NVML",
    "loans": "Memory that one process made and another one maps",
    "at once": "Memory: contexts and modules of eight processes at once",
    "shares": "Time: one tenant",
    "hostbound": "Time: programs bound by their host",
    "streams": "Time: a stream for each of four threads",
    "turns": "Time: two tenants, under a broker, taking turns",
    "idle": "Time: beside a neighbour that is idle, and when it comes back",
    "returning": "Time: who rested, and comes back beside a busy one",
    "priority": "Time: priorities",
    "tenants": "Time: two tenants without a broker, so without turns",
    "overhead": "Overhead",
    "cost": "Overhead of the broker",
    "init": "Start-up",
    "kills": "Kills",
    "seen": "What NVML shows of processes",
    "live": "Limits that change",
    "torch": "PyTorch 2.11",
    "paired": "PyTorch 2.11: what the library costs where it holds nothing back",
    "path": "PyTorch 2.11: where on a step's host time that goes",
    "exceeded": "A program that takes memory past the library",
    "cards": "Two cards in one container",
    "serve": "PyTorch: requests beside training",
    "check": "`hami limits check`, on a host",
}
REPLACED = {("torch", f"{work}, no limit of time") for work in ("train", "decode", "layer", "matmul")} | {
    ("idle", "who comes back has, from 20 to 120 ms on"),
    ("returning", "who comes back, from 20 to 140 ms on"),
    ("returning", "a new process, from 20 to 140 ms on"),
}
"""Rows of early runs that another section has since, by a better method."""
FAILS = {
    (
        "shares",
        "spin 2 us at 95",
    ): "its host is the bound, and was uneven: 77.7 of 77.5 in run 14",
    (
        "turns",
        "50/50: spin 10 us",
    ): "judged by another process's queue, from which its own differs by 1 to 3 %; run 21 had 49.1 and 50.2",
    ("idle", "and those requests"): "by the target of that day; 90 since, as a slice of 2 ms may be before each",
    (
        "returning",
        "a new process",
    ): "who is alone has 100 ms queued, unpaid, when it comes: it waits for the end of that",
    ("init", "64 x cuInit"): "one alone: 10.6 and 11.6 ms; two rounds of 64 without the library differ by 5 themselves",
    ("torch", "decode at 20"): "prices of its 2 to 5 us kernels are 5.5 % low; by a point's slack, as at 50, undecided",
    ("tenants", ""): "without a broker there are no turns: what the card's own time slices leave",
    (
        "cards",
        "one process, PyTorch",
    ): "it waits for the card at every eighth kernel: 70 % of the card is 71.4 % of its speed, now the target",
}
"""Why a row that fails does, by section and how its name begins."""
VERDICT = {True: "holds", False: "**no**", None: ""}


def save(number: int, files: list[Path]) -> None:
    """Rows without their details: what the page shows, and which card, driver and day they are of."""
    about: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for file in files:
        told = json.loads(file.read_text())
        if "driver" in told:  # of `hami limits check`
            day = time.strftime("%Y-%m-%d", time.gmtime(file.stat().st_mtime))
            about |= {"card": f"{told['card']}, {told['driver']}", "date": day}
            rows += [checked(row) for row in told["rows"]]
            continue
        cards = told["card"].get("smi", "").splitlines()
        about |= {"card": f"{len(cards)} x {cards[0]}" if len(cards) > 1 else "".join(cards), "date": told["date"]}
        rows += [{key: row[key] for key in ("section", "name", "measured", "target", "ok")} for row in told["rows"]]
    RUNS.mkdir(exist_ok=True)
    (RUNS / f"{number}.json").write_text(json.dumps({"run": number, **about, "rows": rows}, indent=1) + "\n")


def checked(row: dict[str, Any]) -> dict[str, Any]:
    name, unit = re.fullmatch(r"(.*?)(?:, (%|MiB|ns))?", row["name"]).groups("")
    measured, limit = (f"{row[key]:g} {unit}".rstrip() for key in ("measured", "limit"))
    return {"section": "check", "name": name, "measured": measured, "target": limit, "ok": row["ok"]}


Found = dict[tuple[str, str], tuple[dict[str, Any], int]]
"""Rows by section and name, with the run they are of."""


def latest(runs: list[dict[str, Any]]) -> Found:
    found: Found = {}
    for run in runs:
        for row in run["rows"]:
            what = re.sub(r" \(alone .*\)", "", row["name"])  # how busy it is alone is measured anew in each run
            if (row["section"], what) not in REPLACED:
                found[row["section"], what] = (row, run["run"])
    return found


def of(section: str, found: Found) -> list[tuple[dict[str, Any], int]]:
    return [each for (its, _), each in found.items() if its == section]


def table(*columns: str, rows: list[list[object]]) -> list[str]:
    return ["| " + " | ".join(map(str, row)) + " |" for row in (columns, ["---"] * len(columns), *rows)]


def glance(found: Found) -> list[str]:
    """Of each section how many rows hold, and how many do not."""
    rows: list[list[object]] = []
    for section, title in TITLES.items():
        verdicts = [row["ok"] for row, _ in of(section, found)]
        if verdicts:
            link = f"[{title}](#{anchor(title)})"
            first, last = (pick(run for _, run in of(section, found)) for pick in (min, max))
            shown = [verdicts.count(verdict) or "" for verdict in (True, False, None)]
            rows.append([link, *shown, f"{first} to {last}" if first != last else first])
    return ["## At a glance", "", *table("what", "holds", "**no**", "shown, or undecided", "runs", rows=rows)]


def anchor(title: str) -> str:
    """As the pages' renderer makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def failing(found: Found) -> list[str]:
    rows: list[list[object]] = []
    for section in TITLES:
        for row, run in of(section, found):
            if row["ok"] is False:
                why = [
                    text for (its, begins), text in FAILS.items() if its == section and row["name"].startswith(begins)
                ]
                rows.append([row["name"], row["measured"], row["target"], run, *(why or [""])])
    return ["## Rows that do not hold", "", *table("what", "measured", "target", "run", "why", rows=rows)]


def tables() -> str:
    runs = sorted((json.loads(file.read_text()) for file in RUNS.glob("*.json")), key=lambda run: int(run["run"]))
    found = latest(runs)
    lines = [*glance(found), "", *failing(found)]
    for section, title in TITLES.items():
        rows = [
            [row["name"], row["measured"], row["target"], VERDICT[row["ok"]], run] for row, run in of(section, found)
        ]
        if rows:
            lines += ["", f"## {title}", "", *table("what", "measured", "target", "", "run", rows=rows)]
    days = [[run["run"], run["date"], run["card"]] for run in runs]
    lines += ["", "## Runs", "", *table("run", "date", "card, driver, memory", rows=days)]
    return "\n".join(lines) + "\n"


def page() -> str:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


def main(words: list[str]) -> int:
    match words:
        case ["save", number, *files] if files:
            save(int(number), [Path(file) for file in files])
        case ["write"]:
            PAGE.write_text(page())
        case ["check"]:
            return int(PAGE.read_text() != page())
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
