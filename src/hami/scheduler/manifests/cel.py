"""Parts of CEL expressions that webhook and policies share. Every one is total: no field it reads must be there."""

from collections.abc import Iterable, Sequence

from hami.wire.annotations import OTHER_RECORDS, RECORD_KEYS, RECORD_SUFFIXES


def strings(values: Iterable[str]) -> str:
    """A list literal."""
    return f"[{', '.join(map(string, values))}]"


def string(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def or_empty(path: str) -> str:
    """The map at a path of at least two steps, {} where it or its parent is missing."""
    parent, _, _ = path.rpartition(".")
    return f"(has({parent}) && has({path}) ? {path} : {{}})"


def is_record(key: str) -> str:
    """Whether the variable `key` names a record (`wire.annotations.is_record`)."""
    endings = " || ".join(f"{key}.endsWith({string(suffix)})" for suffix in RECORD_SUFFIXES)
    exact = strings((*RECORD_KEYS, *OTHER_RECORDS))
    return f"({key}.startsWith('hami.io/') && ({key} in {exact} || {endings}))"


def asks(resources: Sequence[str]) -> str:
    """Whether any container of the pod `object` names one of the resources."""
    named = " || ".join(
        f"(has(c.resources) && has(c.resources.{part}) && {strings(resources)}.exists(r, r in c.resources.{part}))"
        for part in ("limits", "requests")
    )
    apps = f"object.spec.containers.exists(c, {named})"
    inits = f"(has(object.spec.initContainers) && object.spec.initContainers.exists(c, {named}))"
    return f"({apps} || {inits})"


def annotated(resources: Sequence[str]) -> str:
    """Whether the pod `object` carries a record, or a resource where it has no effect."""
    found = f"k, {is_record('k')} || k in {strings(resources)}"
    annotations = f"(has(object.metadata.annotations) && object.metadata.annotations.exists({found}))"
    labels = f"(has(object.metadata.labels) && object.metadata.labels.exists(k, {is_record('k')}))"
    return f"({annotations} || {labels})"
