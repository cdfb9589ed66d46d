"""Decoding as Go's peers do it, and msgspec's errors turned into `Malformed`: path, value, what is allowed.

A null where no null belongs means absent, as in Go. msgspec says what it
expected and where; the value itself is looked up, on this slow path only.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from hami.model.errors import Malformed

T = TypeVar("T")
_WHERE = re.compile(r"^(?P<what>.*?) - at `(?P<key>key in )?\$?(?P<path>.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def decoded(decode: Callable[[bytes], T], body: bytes | str, root: str) -> T:
    """`decode(body)`; what fails is `Malformed` with a path below `root`."""
    raw = body.encode() if isinstance(body, str) else body
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        return _decoded_without_nulls(decode, raw, malformed(error, raw, root))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(root, raw[:64].decode("utf-8", "replace"), f"valid JSON ({error})") from error
    except RecursionError as error:
        raise Malformed(root, raw[:64].decode("utf-8", "replace"), "JSON nested less deeply") from error


def _decoded_without_nulls(decode: Callable[[bytes], T], raw: bytes, first: Malformed) -> T:
    """A second attempt at a document that has nulls; `first` is what is wrong if it fails too."""
    if b"null" not in raw:
        raise first
    try:
        return decode(msgspec.json.encode(_pruned(msgspec.json.decode(raw))))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise first from error


def _pruned(value: object) -> object:
    if isinstance(value, dict):
        return {key: _pruned(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_pruned(one) for one in value]
    return value


def malformed(error: msgspec.ValidationError, body: bytes, root: str) -> Malformed:
    """The fault msgspec found in `body`, with the value at its path."""
    match = _WHERE.match(str(error))
    what, path = (match["what"], match["path"]) if match else (str(error), "")
    return Malformed(f"{root}{path}", _value_at(body, path), _sentence(what))


def _sentence(what: str) -> str:
    return what[:1].lower() + what[1:]


def _value_at(body: bytes, path: str) -> object:
    """What stands at msgspec's path; the nearest thing above it where the path is not exact."""
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body[:64].decode("utf-8", "replace")
    for name, index in _STEP.findall(path):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and index.isdigit() and int(index) < len(value):
            value = value[int(index)]
        else:
            break
    return value
