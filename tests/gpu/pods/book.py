"""What was found: one row a check, one step a pod or two. A step that fails says so in its rows and stops no other."""

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO


@dataclass
class Row:
    """`row` is the acceptance table's id, or empty. `ok` None: for comparison, or not run (`measured` says why)."""

    row: str
    name: str
    measured: str
    expected: str
    ok: bool | None
    step: str = ""


@dataclass
class Step:
    name: str
    seconds: float
    fault: str | None = None


@dataclass
class Book:
    """Rows and log; the JSON is written after every step, so that a run cut short leaves what it had."""

    path: Path
    log: TextIO
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    step: str = ""

    def say(self, text: str) -> None:
        line = f"{time.monotonic() - self.begun:6.1f} s  {text}"
        print(line, flush=True)
        print(line, file=self.log, flush=True)

    def note(self, what: str, text: str) -> None:
        """Several lines for the log alone."""
        shown = "\n".join(f"          | {line}" for line in text.rstrip().splitlines())
        print(f"{time.monotonic() - self.begun:6.1f} s  {what}\n{shown}", file=self.log, flush=True)

    def add(self, row: str, name: str, measured: object, expected: str, ok: bool | None) -> None:
        self.rows.append(Row(row, name, str(measured), expected, ok, self.step))
        verdict = {True: "ok", False: "FAIL", None: "-"}[ok]
        self.say(f"{row:5} {name:52} {measured!s:>30}  {expected:36} {verdict}")

    def run(self, name: str, work: Callable[[], None]) -> bool:
        """One step; whether it came to its end."""
        begun = time.monotonic()
        self.step = name
        self.say(f"--- {name}")
        fault = None
        try:
            work()
        except Exception as problem:  # a step may fail in any way; the others go on
            fault = f"{type(problem).__name__}: {problem}"
            self.note("failed", traceback.format_exc())
            self.rows.append(Row("", f"{name}: came to its end", fault[:300], "no fault", False, name))
            self.say(f"FAIL  {name}: {fault[:1000]}")
        self.steps.append(Step(name, round(time.monotonic() - begun, 1), fault))
        self.write()
        return fault is None

    def write(self) -> None:
        answer = {
            **self.facts,
            "rows": [asdict(row) for row in self.rows],
            "steps": [asdict(one) for one in self.steps],
        }
        fresh = self.path.with_suffix(".partial")
        fresh.write_text(json.dumps(answer, indent=1))
        fresh.replace(self.path)

    @property
    def failed(self) -> list[str]:
        return [f"{row.row} {row.name}".strip() for row in self.rows if row.ok is False]
