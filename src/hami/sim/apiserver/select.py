"""Label and field selectors, as far as lists and watches of ours use them. Pure."""

import re
from collections.abc import Callable
from typing import Any

from hami.sim.apiserver.route import refuse

Json = dict[str, Any]
Match = Callable[[Json], bool]
_IN = re.compile(r"^\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*$")


def selector(labels: str = "", fields: str = "") -> Match:
    """Whether an object is selected. Raises `BadRequest` for what cannot be read."""
    tests = [_label(part) for part in _split(labels)] + [_field(part) for part in _split(fields)]
    return lambda item: all(test(item) for test in tests)


def _split(text: str) -> list[str]:
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _comparison(text: str) -> tuple[str, str, bool]:
    for sign, equal in (("!=", False), ("==", True), ("=", True)):
        if sign in text:
            name, value = text.split(sign, 1)
            return name.strip(), value.strip(), equal
    raise refuse(400, "BadRequest", f"unable to parse requirement: {text!r}")


def _label(text: str) -> Match:
    def labels(item: Json) -> Json:
        return item["metadata"].get("labels") or {}

    if found := _IN.match(text):
        name, wanted = found[1], {value.strip() for value in found[3].split(",")}
        if found[2] == "in":
            return lambda item: labels(item).get(name) in wanted
        return lambda item: labels(item).get(name) not in wanted
    if "=" not in text:
        name = text.strip()
        if name.startswith("!"):
            return lambda item: name[1:] not in labels(item)
        return lambda item: name in labels(item)
    name, value, equal = _comparison(text)
    return lambda item: (labels(item).get(name) == value) is equal


def _field(text: str) -> Match:
    name, value, equal = _comparison(text)
    path = name.split(".")

    def found(item: Json) -> str:
        here: Any = item
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        return str(here) if here is not None else ""

    return lambda item: (found(item) == value) is equal
