"""The small ways in which a module is broken, one at a time.

What types say is no behaviour (annotations, aliases, class keywords), and neither are docstrings, bare pauses of
a generator and names that only people and logs read; those are left alone.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift,
    ast.RShift: ast.LShift, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
TYPING = {"TypeVar", "NewType", "cast", "ParamSpec"}


@dataclass(frozen=True)
class Mutant:
    module: str
    unit: str
    """Qualified name of the function it is in; empty outside of any."""
    unit_text: str
    """That function's text, or the module's: while it is the same, so is what this mutant does."""
    lines: frozenset[int]
    """A test that runs none of these cannot notice."""
    line: int
    change: str
    number: int
    """Its place among all mutants of the module."""

    @property
    def name(self) -> str:
        """The same as long as its function is."""
        return f"{self.module} {self.unit or '(module)'}: {self.change}"


class Module:
    """A module's text and all its mutants."""

    def __init__(self, name: str, text: str) -> None:
        self._tree = ast.parse(text)
        self._places: list[tuple[ast.AST, ast.AST]] = []
        self.mutants: list[Mutant] = []
        seen: Counter[str] = Counter()
        for node, unit, statement in _walk(self._tree, None, None):
            for variant, change in _changes(node):
                where = unit.path if unit else ""
                seen[f"{where}: {change}"] += 1
                nth = seen[f"{where}: {change}"]
                told = change if nth == 1 else f"{change} @{nth}"
                words = ast.unparse(unit.node) if unit else text
                lines = _lines(node, statement)
                one = Mutant(name, where, words, lines, getattr(node, "lineno", 0), told, len(self._places))
                self.mutants.append(one)
                self._places.append((node, variant))

    def code(self, mutant: Mutant, file: str) -> CodeType:
        """The module with this one change, on the same lines. Later calls start from the unchanged text."""
        node, variant = self._places[mutant.number]
        kind, fields = node.__class__, dict(node.__dict__)
        node.__class__ = variant.__class__
        node.__dict__.update(variant.__dict__)
        try:
            return compile(ast.fix_missing_locations(self._tree), file, "exec")
        finally:
            node.__class__ = kind
            node.__dict__.clear()
            node.__dict__.update(fields)


@dataclass(frozen=True)
class _Unit:
    path: str
    node: ast.AST


def _walk(
    node: ast.AST, unit: _Unit | None, statement: ast.stmt | None, path: str = ""
) -> Iterator[tuple[ast.AST, _Unit | None, ast.stmt | None]]:
    """Each node that may be changed, the outermost function it is in, and its statement."""
    if _said_not_done(node):
        return
    if isinstance(node, ast.stmt):
        statement = node
    yield node, unit, statement
    inner, below = unit, path
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        below = f"{path}.{node.name}" if path else node.name
        if unit is None and not isinstance(node, ast.ClassDef):
            inner = _Unit(below, node)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "format_spec", "keywords", "bases") and _about_types(node, field):
            continue
        in_body = field == "body" and isinstance(value, list)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, inner if in_body else unit, statement, below if in_body else path)


UNHEARD = {"strict", "maxsize"}
"""Keywords that state an invariant or the size of a cache: another value changes no answer."""


def _about_types(node: ast.AST, field: str) -> bool:
    return field not in ("keywords", "bases") or isinstance(node, ast.ClassDef)


def _said_not_done(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant() | ast.Yield(value=None)):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]) | ast.Import() | ast.ImportFrom():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in TYPING
        case ast.keyword(arg=name):
            return name in UNHEARD
    return False


def _lines(node: ast.AST, statement: ast.stmt | None) -> frozenset[int]:
    own: ast.AST = node.test if isinstance(node, ast.If | ast.IfExp | ast.While) else node
    first = getattr(own, "lineno", 0)
    lines = set(range(first, (getattr(own, "end_lineno", first) or first) + 1))
    if statement is not None and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
        lines.add(statement.lineno)
    return frozenset(lines)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What may be done to one node, and how that is called."""
    for variant in _variants(node):
        yield variant, f"{_short(node)}  ->  {_short(variant)}"


def _variants(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912 - a case a kind of node
    match node:
        case ast.Compare(ops=[op, *more]):
            yield _with(node, ops=[SWAPS[type(op)](), *more])
        case ast.BinOp(op=ast.BitOr(), left=left, right=right) if _none(left) or _none(right):
            pass  # a type
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            if type(op) in SWAPS:
                yield _with(node, op=SWAPS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=inner):
            yield inner
        case ast.Constant(value=bool() as value):
            yield _with(node, value=not value)
        case ast.Constant(value=int() | float() as value):
            yield _with(node, value=value + 1)
        case ast.Constant(value=str() as value):
            yield _with(node, value=f"{value}x")
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _with(node, id=NAMES[name])
        case ast.Continue():
            yield ast.Break(lineno=node.lineno, col_offset=node.col_offset)
        case ast.Break():
            yield ast.Continue(lineno=node.lineno, col_offset=node.col_offset)
        case ast.If(test=test) | ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[first, *more]):
            yield _with(node, ifs=[ast.UnaryOp(ast.Not(), first), *more])
        case ast.Return(value=ast.expr() as value) if not _none(value) and not _false(value):
            yield _with(node, value=ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass(lineno=node.lineno, col_offset=node.col_offset)


def _none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _false(node: ast.AST) -> bool:
    """As false as None: most callers could not tell."""
    return isinstance(node, ast.Constant) and node.value is False


def _with(node: ast.AST, **fields: object) -> ast.AST:
    return node.__class__(**{**node.__dict__, **fields})


def _short(node: ast.AST) -> str:
    text = ast.unparse(node).splitlines()[0]
    return text if len(text) <= 70 else f"{text[:69]}…"
