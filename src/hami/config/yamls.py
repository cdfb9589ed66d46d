"""What is wrong with a YAML text, in one line: where it is, what stands there, and what would help.

PyYAML tells it in several, with the text around; a person who has the file open wants the place.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from hami.model.errors import Malformed

WAYS_OUT = (
    ("stands twice", "leave one of the two out"),
    ("another document", "one document a file: split it at the line ---"),
    (r"'\\t'", "indent by spaces, not by a tab"),
    ("constructor for the tag", "leave the tag (!...) out: plain values only"),
    ("mapping values are not allowed", 'put a text that has ": " in quotes, or mend the indent'),
    ("special characters", "leave the character out"),
    ("unhashable key", "a key is a plain text; a template ({{ ... }}) is filled in first"),
    ("of no such kind", "put it in quotes where a text is meant"),
    ("undefined alias", "name an anchor (&...) that stands before it"),
    ("expected ',' or", "close the bracket of before, or put the text in quotes"),
    ("while scanning a quoted scalar|end of stream", "close the quote or the bracket of before"),
)
FAULTS = (yaml.YAMLError, ValueError, TypeError, RecursionError)
OTHERWISE = "mend the indent, the brackets or the quotes there"
DEEP = "leave an alias (*...) out of what its own anchor (&...) names, and nest it less deeply"


def document(text: str, name: str) -> Any:
    """What the one document of a text says, as JSON could. Raises `Unusable`: ``NAME, line 3, column 5: ...``."""
    return _read(text, name, lambda: yaml.load(text, Placed))  # noqa: S506 (it is a SafeLoader)


def documents(text: str, name: str) -> list[Any]:
    """Likewise of several, those left out that say nothing."""
    return [one for one in _read(text, name, lambda: list(yaml.load_all(text, Placed))) if one]


def _read(text: str, name: str, read: Callable[[], Any]) -> Any:
    try:
        found = read()
        msgspec.json.encode(found)  # as it will be sent: YAML can say things that JSON cannot
    except FAULTS as fault:
        where = place(fault, text)
        raise Unusable(f"{name}{where and ', '}{where}: {_what(fault)}: {_way_out(fault)}") from None
    return found


def place(fault: Exception, text: str) -> str:
    """``line 3, column 5``; empty where it is not known."""
    mark = getattr(fault, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(fault, yaml.reader.ReaderError):
        before = text[: fault.position]
        return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
    return ""


class Unusable(Malformed):
    """A file that cannot be used, told in words that say all."""

    def __init__(self, words: str) -> None:
        super().__init__("the file", None, words)
        self.args = (words,)


class Placed(yaml.SafeLoader):
    """Says of a value that looks like a date and is none, or that its tag (!!bool) does not fit, where it stands.

    A key that stands twice is a fault: the second would win in silence. Compared as written, for JSON has texts only.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, yaml.Mark] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):  # others are refused later
            before = first.setdefault(key.value, key.start_mark)
            if before is not key.start_mark:
                problem = f"the key {key.value!r} stands twice, first in line {before.line + 1}"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as fault:
            problem = f"{node.value!r} is of no such kind as it looks like: {fault}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None
        except (AttributeError, LookupError):  # which is how PyYAML has it
            problem = f"{node.value!r} is of no such kind as its tag says"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _what(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "it is nested too deeply"
    if isinstance(fault, yaml.reader.ReaderError):
        return f"character #x{fault.character:02x} is not allowed: {fault.reason}"
    return " ".join(str(getattr(fault, "problem", None) or fault).split())


def _way_out(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return DEEP
    told = f"{getattr(fault, 'context', None)} {_what(fault)}"
    return next((way for sign, way in WAYS_OUT if re.search(sign, told)), OTHERWISE)
