"""The files of a trace, whatever their form: told apart by their names. Opens files, decides nothing."""

from pathlib import Path

from hami.model.errors import Malformed
from hami.sim import mapping, trace
from hami.sim.trace import Job, Machine


def machines(path: Path, columns: str | None = None) -> tuple[Machine, ...]:
    """Nodes from JSON lines, or from a CSV: openb's columns unless `columns` names others."""
    text = _read(path)
    if path.suffix in (".jsonl", ".ndjson"):
        return trace.decode(text, path.name).machines
    return mapping.machines(text, mapping.parse(columns or mapping.OPENB_NODES, Machine), path.name)


def jobs(path: Path, columns: str | None = None) -> tuple[Job, ...]:
    """Pods, in the same way."""
    text = _read(path)
    if path.suffix in (".jsonl", ".ndjson"):
        return trace.decode(text, path.name).jobs
    return mapping.jobs(text, mapping.parse(columns or mapping.OPENB_PODS, Job), path.name)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise Malformed(str(path), "bytes that are no UTF-8", "a CSV with a header, or .jsonl") from None
