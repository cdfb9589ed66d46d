"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902, the verbs we send). Pure: a new object comes out."""

from typing import Any

from hami.sim.apiserver.route import refuse


def merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def apply(old: Any, operations: list[dict[str, Any]]) -> Any:
    """Operations add, replace, remove and test. Raises `Invalid` when one does not fit."""
    for operation in operations:
        keys = [key.replace("~1", "/").replace("~0", "~") for key in operation["path"].split("/")[1:]]
        old = _step(old, keys, operation)
    return old


def _step(here: Any, keys: list[str], operation: dict[str, Any]) -> Any:
    verb, path = operation["op"], operation["path"]
    if not keys:
        if verb == "test" and here != operation["value"]:
            raise refuse(422, "Invalid", f"test operation for path {path} failed")
        return here if verb == "test" else operation.get("value")
    key, rest = keys[0], keys[1:]
    if isinstance(here, list):
        return _in_list(here, key, rest, operation)
    if not isinstance(here, dict) or ((rest or verb in ("replace", "remove", "test")) and key not in here):
        raise refuse(422, "Invalid", f"{verb} operation does not apply: doc is missing path: {path}")
    changed = dict(here)
    if not rest and verb == "remove":
        del changed[key]
    else:
        changed[key] = _step(here.get(key), rest, operation)
    return changed


def _in_list(here: list[Any], key: str, rest: list[str], operation: dict[str, Any]) -> list[Any]:
    verb, changed = operation["op"], list(here)
    index = len(here) if key == "-" else int(key)
    if not rest and verb == "add":
        changed.insert(index, operation["value"])
    elif index >= len(here):
        raise refuse(422, "Invalid", f"{verb} operation does not apply: no index {key} in {operation['path']}")
    elif not rest and verb == "remove":
        del changed[index]
    else:
        changed[index] = _step(here[index], rest, operation)
    return changed
