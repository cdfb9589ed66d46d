"""Configuration files -> `config.schema`: device-config.yaml of the cluster, config.json of the nodes.

HAMi's files are read as they are. What they may carry and we cannot serve yet
(other vendors' sections, keys HAMi has dropped) is reported, not a fault; a
misspelt key is a fault with its path.
"""

import re
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec
import yaml

from hami.config.schema import DeviceConfig, NodeOverrides
from hami.config.yamls import Placed, place
from hami.model.errors import Malformed

OTHER_VENDORS = (
    "amd", "awsneuron", "biren", "cambricon", "enflame", "hygon", "iluvatars", "kunlun", "metax", "mthreads",
    "vastai", "vnpus",
)  # fmt: skip
"""Sections of HAMi's device-config.yaml whose families are not supported yet."""

_DROPPED_KEYS = {"nvidia": ("knownMigGeometries",)}  # HAMi up to 2.9; MIG profiles now come from the driver

T = TypeVar("T")
_WHERE = re.compile(r"^(?P<what>.*?) - at `\$?(?P<path>.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


def device_config(text: str, source: str) -> DeviceConfig:
    """The cluster's configuration. Raises `Malformed`, its path ``<source>:$.nvidia.deviceSplitCount``.

    `unsupported` tells what of the file does not count.
    """
    document = dict(_mapping(text, source))
    for section in OTHER_VENDORS:
        document.pop(section, None)
    for section, dropped in _DROPPED_KEYS.items():
        if isinstance(document.get(section), dict):
            document[section] = {key: value for key, value in document[section].items() if key not in dropped}
    given = {key: value for key, value in document.items() if value is not None}
    return _distinct_resources(_converted(given, DeviceConfig, source), source)


def unsupported(text: str, source: str) -> tuple[str, ...]:
    """A sentence for each part of a device-config.yaml that we accept and do not serve."""
    document = _mapping(text, source)
    sections = [
        f"{source}:$.{section}: this vendor is not supported yet; the section does not count"
        for section in OTHER_VENDORS
        if document.get(section)
    ]
    dropped = [
        f"{source}:$.{section}.{key}: no longer read; it does not count"
        for section, names in _DROPPED_KEYS.items()
        for key in names
        if key in (document.get(section) or {})
    ]
    return (*sections, *dropped)


def node_overrides(text: str, source: str) -> NodeOverrides:
    """The per-node file, JSON or YAML. Raises `Malformed`."""
    return _converted(_mapping(text, source), NodeOverrides, source)


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        document = yaml.load(text, Placed)  # noqa: S506 (it is a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = place(error, text)
        problem = getattr(error, "problem", error)
        raise Malformed(f"{source}:$", text[:64], f"YAML{where and ' at '}{where}: {problem}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Malformed(f"{source}:$", document, "a mapping of sections")
    return document


def _converted(document: dict[str, Any], kind: type[T], source: str) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        match = _WHERE.match(str(error))
        what, path = (match["what"], match["path"]) if match else (str(error), "")
        raise _fault(what, path, document, kind, source) from error


def _fault(what: str, path: str, document: Any, kind: Any, source: str) -> Malformed:
    """msgspec's words with what it leaves out: the value, and what the schema has at that place."""
    schema = _schema_at(kind, path)
    unknown = re.search(r"unknown field `(.*)`", what)
    if unknown and isinstance(schema, msgspec.inspect.StructType):
        known = [field.encode_name for field in schema.fields]
        near = get_close_matches(unknown[1], known, 1)
        allowed = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known)}"
        return Malformed(f"{source}:${path}.{unknown[1]}", unknown[1], allowed)
    if isinstance(schema, msgspec.inspect.LiteralType):
        what = f"one of {', '.join(map(str, schema.values))}"
    return Malformed(f"{source}:${path}", _value_at(document, path), what[:1].lower() + what[1:])


def _value_at(document: Any, path: str) -> Any:
    for name, index in _STEP.findall(path):
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and index and int(index) < len(document):
            document = document[int(index)]
    return document


def _schema_at(kind: Any, path: str) -> msgspec.inspect.Type:
    """The schema's type at msgspec's path."""
    here = msgspec.inspect.type_info(kind)
    for name, index in _STEP.findall(path):
        if index and isinstance(here, msgspec.inspect.ListType):
            here = here.item_type
        elif isinstance(here, msgspec.inspect.StructType):
            here = next(field.type for field in here.fields if field.encode_name == name)
        if isinstance(here, msgspec.inspect.UnionType):
            here = next(one for one in here.types if not isinstance(one, msgspec.inspect.NoneType))
    return here


def _distinct_resources(config: DeviceConfig, source: str) -> DeviceConfig:
    """Two meanings under one resource name could not be told apart."""
    names: set[str] = set()
    for field in ("Count", "Memory", "MemoryPercentage", "Core", "Priority"):
        key = f"resource{field}Name"
        snake = re.sub(r"(?<!^)([A-Z])", r"_\1", key).lower()
        name = getattr(config.nvidia, snake)
        if name and name in names:
            raise Malformed(f"{source}:$.nvidia.{key}", name, "a resource name that no other key has")
        names.add(name)
    if not config.nvidia.resource_count_name:
        raise Malformed(f"{source}:$.nvidia.resourceCountName", "", "the resource that counts cards")
    return config
