"""Tables of other clusters: any CSV whose columns are named by a mapping. openb's is built in.

A mapping is ``field=column`` pairs for the fields of `Machine` or `Job`; ``field=column*1000``
multiplies, for files that count in cores, GiB or whole GPUs. Fields that are not named keep their defaults; hosts whose
CPU or memory nobody names have no limit of it. Two more are worked out for jobs: `gpus`, a number of GPUs that may be a
part of one, and `lives`, how many seconds it ran. Times are seconds, or dates as ``2020-04-01 00:00:10`` (UTC where
they do not say).
Reads text, opens no files.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import fields

from hami.model.errors import Malformed
from hami.sim.traces.trace import MOST, UNKNOWN, Job, Machine, checked_job, checked_machine, one_of_each_name

T = TypeVar("T", bound=Struct)

OPENB_NODES = "name=sn,cpu_milli=cpu_milli,mem_mib=memory_mib,cards=gpu,model=model"
OPENB_PODS = (
    "name=name,cpu_milli=cpu_milli,mem_mib=memory_mib,cards=num_gpu,card_mem=gpu_milli,"
    "models=gpu_spec?,arrives=creation_time?,leaves=deletion_time?"
)
"""`gpu_milli` is of each GPU. A question mark: the column may be missing (the multi-GPU lists have no times)."""

OPTIONS: Mapping[type[Struct], str] = {Machine: "--node-columns", Job: "--pod-columns"}
LONGEST = 18
"""Digits before the point; a longer number is refused before it is spelled out."""

GPUS, LIVES, TIMES = "gpus", "lives", ("arrives", "leaves")
WORKED_OUT: Mapping[type[Struct], Mapping[str, tuple[str, ...]]] = {
    Machine: {},
    Job: {GPUS: ("cards", "card_mem"), LIVES: ("leaves",)},
}
"""More fields, and those that they stand for."""
NEEDED: Mapping[type[Struct], tuple[str, ...]] = {Machine: ("name", "cards"), Job: ()}
UNNAMED: Mapping[type[Struct], Mapping[str, int]] = {Machine: {"cpu_milli": UNKNOWN, "mem_mib": UNKNOWN}, Job: {}}
"""What fields without a default are where there is no column for them; a job then has the number of its line."""

_COLUMN = re.compile(r"(?P<column>[^*?]+)(\*(?P<factor>\d+(\.\d+)?))?(?P<optional>\?)?")


class Source(Struct, frozen=True):
    """Where a field comes from."""

    column: str
    factor: Decimal
    optional: bool


Mapped = Mapping[str, Source]


def parse(text: str, kind: type[Struct]) -> Mapped:
    """``cards=gpu_num,cpu_milli=cpu*1000,leaves=end?``. Raises `Malformed`."""
    more = WORKED_OUT[kind]
    known = [*(field.name for field in fields(kind)), *more]
    found: dict[str, Source] = {}
    for pair in text.split(","):
        field, _, column = (part.strip() for part in pair.partition("="))
        match = _COLUMN.fullmatch(column)
        if field not in known or match is None:
            raise Malformed(OPTIONS[kind], pair, f"FIELD=COLUMN, COLUMN*NUMBER or COLUMN?, with a field of {known}")
        found[field] = Source(match["column"], Decimal(match["factor"] or 1), bool(match["optional"]))
    lacking = [field for field in NEEDED[kind] if field not in found]
    if lacking:
        raise Malformed(OPTIONS[kind], text, f"a column for {' and '.join(lacking)} too")
    for field, others in more.items():
        doubled = found.keys() & set(others) if field in found else set()
        if doubled:
            raise Malformed(OPTIONS[kind], text, f"either {field} or {', '.join(sorted(doubled))}")
    return found


def machines(text: str, mapped: Mapped, source: str) -> tuple[Machine, ...]:
    """Nodes of a CSV with a header line. Raises `Malformed` with file, line and column."""
    found = tuple(checked_machine(one, path) for path, one in _rows(text, mapped, source, Machine))
    one_of_each_name((one.name for one in found), source)
    return found


def jobs(text: str, mapped: Mapped, source: str) -> tuple[Job, ...]:
    """Pods of a CSV with a header line."""
    found = tuple(checked_job(one, path) for path, one in _rows(text, mapped, source, Job))
    one_of_each_name((one.name for one in found), source)
    return found


def _rows(text: str, mapped: Mapped, source: str, kind: type[T]) -> list[tuple[str, T]]:
    lines = _lines(text, source)
    _, header = next(lines, (1, []))
    there = {field: one for field, one in mapped.items() if one.column in header}
    missing = [one.column for field, one in mapped.items() if field not in there and _needed(field, one, kind)]
    if missing:
        raise Malformed(
            f"{source}:1",
            ",".join(header),
            f"a header with {', '.join(missing)} too, or {OPTIONS[kind]} FIELD=COLUMN,...",
        )
    defaults = {field.name: field.default for field in fields(kind)} | dict.fromkeys(WORKED_OUT[kind])
    found = []
    for number, cells in lines:
        path = f"{source}:{number}"
        if len(cells) != len(header):
            raise Malformed(
                path, ",".join(cells), f"{len(header)} columns, as in the first line; this one has {len(cells)}"
            )
        row = dict(zip(header, cells, strict=True))
        given: dict[str, object] = {field: one for field, one in UNNAMED[kind].items() if field not in there}
        if "name" not in there:
            given["name"] = f"line-{number}"
        for field, one in there.items():
            cell = row[one.column].strip()
            if cell:
                given[field] = _value(cell, field, one, f"{path}.{one.column}")
            elif field == "name":
                raise Malformed(f"{path}.{one.column}", cell, "a name")
            elif not isinstance(defaults[field], int | float | str | tuple | None):
                raise Malformed(f"{path}.{one.column}", cell, "a number")
        found.append((path, kind(**_worked_out(given))))
    return found


def _needed(field: str, source: Source, kind: type[Struct]) -> bool:
    """Whether the column must be there. Nobody can guess how many cards a node has, whatever the mapping says."""
    return not source.optional or field in NEEDED[kind]


def _worked_out(given: dict[str, object]) -> dict[str, object]:
    """`gpus` and `lives` in the fields of a job."""
    gpus, lives = given.pop(GPUS, None), given.pop(LIVES, None)
    if isinstance(gpus, Decimal):
        cards = math.ceil(gpus)
        given |= {"cards": cards, "card_mem": round(1000 * gpus / cards) if cards > 0 else 0}
    if isinstance(lives, Decimal):
        arrives = given.get("arrives", 0.0)
        assert isinstance(arrives, float)
        given["leaves"] = arrives + float(lives)
    return given


def _lines(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers."""
    reader = csv.reader(io.StringIO(text))
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as fault:
            raise Malformed(f"{source}:{reader.line_num}", str(fault), "a CSV") from None
        if cells is None:
            return
        if cells:
            yield reader.line_num, cells


def _value(cell: str, field: str, source: Source, path: str) -> object:
    if field in ("name", "model"):
        return cell
    if field == "models":
        return tuple(word.strip() for word in cell.split("|") if word.strip())
    try:
        number = Decimal(cell) * source.factor
    except DecimalException:
        if field in TIMES and source.factor == 1:
            return _date(cell, path)
        raise Malformed(path, cell, "a number") from None
    if not number.is_finite() or number.adjusted() > LONGEST:
        raise Malformed(path, cell, "a number" if not number.is_finite() else f"{MOST} or less")
    if field == "cards" and number != int(number):
        raise Malformed(path, cell, "a whole number of cards; where it may be a part of one, name the field gpus")
    if field in (GPUS, LIVES):
        return number
    return float(number) if field in TIMES else int(number)


def _date(cell: str, path: str) -> float:
    try:
        found = datetime.fromisoformat(cell)
    except ValueError:
        raise Malformed(path, cell, "seconds, or a date as 2020-04-01 00:00:10") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
