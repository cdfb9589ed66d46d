"""The files of a trace, told apart by their names and first words. Opens files, decides nothing.

A CSV; JSON lines of our own (`trace`); what `hami record` wrote, lines or a snapshot (`recorded`).
"""

from pathlib import Path

from hami.model.errors import Malformed
from hami.sim import mapping, recorded, trace
from hami.sim.trace import Job, Machine, Trace


def machines(path: Path, columns: str | None = None) -> tuple[Machine, ...]:
    """Nodes. A CSV has openb's columns unless `columns` names others. Raises `Malformed`."""
    found = _json(path)
    if found is not None:
        return found.machines
    mapped = mapping.parse(columns or mapping.OPENB_NODES, Machine)
    return mapping.machines(_text(path), mapped, path.name)


def jobs(path: Path, columns: str | None = None) -> tuple[Job, ...]:
    """Pods, in the same way."""
    found = _json(path)
    if found is not None:
        return found.jobs
    mapped = mapping.parse(columns or mapping.OPENB_PODS, Job)
    return mapping.jobs(_text(path), mapped, path.name)


def _json(path: Path) -> Trace | None:
    """The trace of a file of JSON; None for another one."""
    if path.suffix == ".json":
        return recorded.from_snapshot(path.read_bytes(), path.name)
    if path.suffix not in (".jsonl", ".ndjson"):
        return None
    with path.open("rb") as file:
        if b'"event"' in file.readline(4096):
            return recorded.from_record(path.read_bytes(), path.name)
    return trace.decode(_text(path), path.name)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # spreadsheets put a mark at the beginning
    except UnicodeDecodeError:
        raise Malformed(str(path), "bytes that are no UTF-8", "a CSV with a header, .jsonl or .json") from None
