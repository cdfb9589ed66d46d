"""Command-line options made from a Settings struct, so that a setting is described once.

A field becomes `--its-name` with its type, its default and, as help, the text
below it in the source. `HAMI_<ITS_NAME>` in the environment sets it too.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click
import msgspec

C = TypeVar("C", bound=click.Command)


def from_settings(settings: type[msgspec.Struct], names: Mapping[str, str] | None = None) -> Callable[[C], C]:
    """Give a command one option for each field. `names` adds a second spelling, ``{"node_name": "--node"}``."""
    hints = get_type_hints(settings)
    helps = field_docs(settings)

    def decorate(command: C) -> C:
        for field in msgspec.structs.fields(settings):
            spelling = (names or {}).get(field.name)
            command.params.append(option(field, hints[field.name], helps.get(field.name), spelling))
        return command

    return decorate


def option(field: msgspec.structs.FieldInfo, hint: Any, help_text: str | None, spelling: str | None) -> click.Option:
    kebab = field.name.replace("_", "-")
    hint = without_none(hint)
    common: dict[str, Any] = {
        "required": field.required,
        "help": help_text,
        "envvar": f"HAMI_{field.name.upper()}",
        "show_default": field.default not in (None, "", ()),
        "show_envvar": field.required,
    }
    if not field.required:  # click takes a default of None for a value
        common["default"] = field.default
    if hint is bool:
        return click.Option([f"--{kebab}/--no-{kebab}", field.name], **common)
    declarations = [f"--{kebab}", field.name, *([spelling] if spelling else [])]
    if get_origin(hint) is tuple:
        member = get_args(hint)[0]
        return click.Option(declarations, type=parameter_type(member), multiple=True, **common)
    return click.Option(declarations, type=parameter_type(hint), **common)


def parameter_type(hint: Any) -> Any:
    """click's type for a field's type: a choice for a Literal, else the type itself."""
    return click.Choice(get_args(hint)) if get_origin(hint) is Literal else hint


def without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    return next(part for part in get_args(hint) if part is not type(None))


def field_docs(settings: type[msgspec.Struct]) -> dict[str, str]:
    """The text that stands below each field. Empty where the source is not at hand."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(settings)))
    except OSError:
        return {}
    statements = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, text in pairwise(statements):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            docs[field.target.id] = inspect.cleandoc(str(text.value.value))
    return docs
