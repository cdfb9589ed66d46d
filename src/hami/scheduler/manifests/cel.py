"""Parts of CEL expressions that webhook and policies share. Every one is total: no field it reads must be there."""

from collections.abc import Iterable, Sequence


def strings(values: Iterable[str]) -> str:
    """A list literal."""
    return f"[{', '.join(map(string, values))}]"


def string(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def or_empty(path: str) -> str:
    """The map at a path of at least two steps, {} where it or its parent is missing."""
    parent, _, _ = path.rpartition(".")
    return f"(has({parent}) && has({path}) ? {path} : {{}})"


def asks(resources: Sequence[str]) -> str:
    """Whether any container of the pod `object` names one of the resources."""
    named = " || ".join(
        f"(has(c.resources) && has(c.resources.{part}) && {strings(resources)}.exists(r, r in c.resources.{part}))"
        for part in ("limits", "requests")
    )
    apps = f"object.spec.containers.exists(c, {named})"
    inits = f"(has(object.spec.initContainers) && object.spec.initContainers.exists(c, {named}))"
    return f"({apps} || {inits})"


def carries(path: str, keys: Sequence[str]) -> str:
    """Whether the map at a path has one of the keys. Walks the keys, never the map, which users can make large."""
    parent, _, _ = path.rpartition(".")
    return f"(has({parent}) && has({path}) && {strings(keys)}.exists(k, k in {path}))"


def differing(after: str, before: str, keys: Sequence[str]) -> str:
    """The keys whose values two maps do not share."""
    return (
        f"{strings(keys)}.filter(k, (k in {after}) != (k in {before}) || (k in {after} && {after}[k] != {before}[k]))"
    )
