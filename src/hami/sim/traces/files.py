"""The files of a trace, told apart by their names and first words. Opens files, decides nothing.

A CSV; JSON lines of our own (`trace`); what `hami record` wrote, lines or a snapshot (`recorded`).
"""

from pathlib import Path

from msgspec import Struct

from hami.config.files import CLUSTERS, decoded, read, text
from hami.model.errors import Malformed
from hami.sim.traces import mapping, recorded, trace
from hami.sim.traces.trace import Job, Machine, Trace

JSON = (".json", ".jsonl", ".ndjson")


def machines(path: Path, columns: str | None = None) -> tuple[Machine, ...]:
    """Nodes. A CSV has openb's columns unless `columns` names others. Raises `Malformed`."""
    found = _json(path, columns, Machine)
    if found is not None:
        return found.machines
    mapped = mapping.parse(columns or mapping.OPENB_NODES, Machine)
    return mapping.machines(text(path, CLUSTERS), mapped, path.name)


def jobs(path: Path, columns: str | None = None) -> tuple[Job, ...]:
    """Pods, in the same way."""
    found = _json(path, columns, Job)
    if found is not None:
        return found.jobs
    mapped = mapping.parse(columns or mapping.OPENB_PODS, Job)
    return mapping.jobs(text(path, CLUSTERS), mapped, path.name)


def _json(path: Path, columns: str | None, kind: type[Struct]) -> Trace | None:
    """The trace of a file of JSON; None for another one."""
    if columns and path.suffix in JSON:
        raise Malformed(mapping.OPTIONS[kind], columns, f"a CSV; {path.name} is JSON, whose fields have names")
    if path.suffix == ".json":
        return recorded.from_snapshot(read(path, CLUSTERS), path.name)
    if path.suffix not in JSON:
        return None
    body = read(path, CLUSTERS)
    if b'"event"' in body[:4096].partition(b"\n")[0]:
        return recorded.from_record(body, path.name)
    return trace.decode(decoded(body, path), path.name)
