"""Vendors' changes -> the JSON Patch of one pod, with no operation that changes nothing.

Works on the object's own JSON, since an operation depends on what is there
(``add`` below a missing ``limits`` would fail). Applied twice it changes nothing,
so the webhook may be called again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hami.model.vendor import ContainerChange, PodChange
from hami.wire.admission import PatchOp, pointer
from hami.wire.faults import decoded


def pod_patch(raw_object: bytes, changes: Sequence[PodChange], scheduler_name: str) -> list[PatchOp]:
    """Operations that apply `changes` (one a vendor); an empty `scheduler_name` is not written."""
    spec = decoded(msgspec.json.decode, raw_object, "object")["spec"]
    ops: list[PatchOp] = []
    if scheduler_name:
        ops += _set(spec, "schedulerName", scheduler_name, "spec")
    runtime_class = next((change.runtime_class for change in changes if change.runtime_class), None)
    if runtime_class and not spec.get("runtimeClassName"):
        ops += _set(spec, "runtimeClassName", runtime_class, "spec")
    inits, apps = spec.get("initContainers") or [], spec["containers"]
    places = [("initContainers", i) for i in range(len(inits))] + [("containers", i) for i in range(len(apps))]
    merged = zip(*(change.containers for change in changes), strict=True)
    for container, place, own in zip((*inits, *apps), places, merged, strict=True):
        ops += _container(container, ("spec", *place), own)
    return ops


def _container(
    container: Mapping[str, Any], place: tuple[str | int, ...], changes: Sequence[ContainerChange]
) -> list[PatchOp]:
    limits = {name: value for change in changes for name, value in change.limits.items()}
    env = {name: value for change in changes for name, value in change.env.items()}
    return [*_limits(container, place, limits), *_env(container, place, env)]


def _limits(container: Mapping[str, Any], place: tuple[str | int, ...], limits: Mapping[str, str]) -> list[PatchOp]:
    if not limits:
        return []
    resources = container.get("resources")
    if not resources:
        return [_add({"limits": dict(limits)}, *place, "resources")]
    present = resources.get("limits")
    if not present:
        return [_add(dict(limits), *place, "resources", "limits")]
    return [op for name, value in limits.items() for op in _set(present, name, value, *place, "resources", "limits")]


def _env(container: Mapping[str, Any], place: tuple[str | int, ...], env: Mapping[str, str]) -> list[PatchOp]:
    """A name the container has keeps its place, as later ones may refer to it; every occurrence gets the value."""
    present = container.get("env") or []
    ops: list[PatchOp] = []
    for index, variable in enumerate(present):
        name = variable.get("name")
        wanted = {"name": name, "value": env.get(name)}
        if name in env and variable != wanted:
            ops.append(_replace(wanted, *place, "env", index))
    known = {variable.get("name") for variable in present}
    new = [{"name": name, "value": value} for name, value in env.items() if name not in known]
    if present:
        return ops + [_add(variable, *place, "env", "-") for variable in new]
    return [_add(new, *place, "env")] if new else []


def _set(parent: Mapping[str, Any], key: str, value: str, *place: str | int) -> list[PatchOp]:
    """One member of an object that exists."""
    if key not in parent:
        return [_add(value, *place, key)]
    return [] if parent[key] == value else [_replace(value, *place, key)]


def _add(value: Any, *place: str | int) -> PatchOp:
    return {"op": "add", "path": pointer(*place), "value": value}


def _replace(value: Any, *place: str | int) -> PatchOp:
    return {"op": "replace", "path": pointer(*place), "value": value}
