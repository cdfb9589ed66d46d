"""Mutation testing: break the code in small ways, one at a time, and see whether its tests notice.

    make mutants MODULE=hami.plan.charge
    python tools/mutants.py hami.plan.charge --tests tests/unit/plan/test_charge.py -o json

The tree is not touched: a mutant is a file elsewhere that is imported in place of the module. Exit code 0: enough
were noticed; 1: too few; 2: the call was wrong. A survivor is a test that is missing, or a change that changes
nothing; those are listed with their reason in tools/mutants-equal.txt.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

import msgspec  # noqa: F401 - imported once, before the forks
import numpy  # noqa: F401
import pytest

ROOT = Path(__file__).resolve().parent.parent
EQUAL = ROOT / "tools/mutants-equal.txt"
TIMEOUT_S = 120

SWAPS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE,), ast.LtE: (ast.Lt,), ast.Gt: (ast.GtE,), ast.GtE: (ast.Gt,), ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add,), ast.FloorDiv: (ast.Mult,), ast.Div: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,), ast.BitAnd: (ast.BitOr,), ast.LShift: (ast.RShift,), ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    line: int
    change: str
    source: str

    @property
    def where(self) -> str:
        return f"{self.line}: {self.change}"


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of a module, one change each, in the order of its lines."""
    tree = ast.parse(text)
    for number, node in enumerate(ast.walk(tree)):
        for variant, change in _changes(node):
            twin = copy.deepcopy(tree)
            for place, other in enumerate(ast.walk(twin)):
                if place == number:
                    _become(other, variant)
            yield Mutant(getattr(node, "lineno", 0), change, ast.unparse(ast.fix_missing_locations(twin)))


def _become(node: ast.AST, variant: ast.AST) -> None:
    node.__class__ = variant.__class__
    node.__dict__.update(copy.deepcopy(variant).__dict__)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What may be done to one node, and how that is called."""
    for variant in _variants(node):
        yield variant, f"{_short(node)}  ->  {_short(variant)}"


def _variants(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912 - a case a kind of node
    match node:
        case ast.Compare(ops=[op]):
            for other in SWAPS.get(type(op), ()):
                yield _with(node, ops=[other()])
        case ast.BinOp(op=op):
            for other in SWAPS.get(type(op), ()):
                if not isinstance(node.left, ast.Constant | ast.JoinedStr) or not isinstance(node.op, ast.BitOr):
                    yield _with(node, op=other())
        case ast.BoolOp(op=op):
            for other in SWAPS[type(op)]:
                yield _with(node, op=other())
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            yield inner
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            yield inner
        case ast.Constant(value=bool() as value):
            yield _with(node, value=not value)
        case ast.Constant(value=int() as value):
            yield _with(node, value=value + 1)
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _with(node, id=NAMES[name])
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.If(test=test) | ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr()):
            yield _with(node, value=ast.Constant(None))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _short(node: ast.AST) -> str:
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]
    return text if len(text) <= 60 else f"{text[:59]}…"


class Finder(importlib.abc.MetaPathFinder):
    """Imports the mutant in place of its module."""

    def __init__(self, module: str, file: Path) -> None:
        self._module, self._file = module, file

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self._file) if name == self._module else None


class Run:
    """Runs a module's tests against mutants of it, each in a child of this process, which has imported the rest."""

    def __init__(self, module: str, tests: list[str], folder: Path) -> None:
        self.module, self.tests, self.file = module, tests, folder / "mutant.py"

    def passes(self, source: str) -> bool:
        """Whether the tests notice nothing. A mutant that hangs is noticed."""
        self.file.write_text(source)
        child = os.fork()
        if child == 0:
            signal.alarm(TIMEOUT_S)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            sys.meta_path.insert(0, Finder(self.module, self.file))
            sys.dont_write_bytecode = True
            os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *self.tests])))
        return os.waitpid(child, 0)[1] == 0


def tests_of(module: str) -> list[str]:
    """Tests that mirror the module, and the judges of the whole engine."""
    _, part, *rest = module.split(".")
    own = ROOT / "tests/unit" / part / f"test_{rest[-1]}.py"
    found = [own] if own.exists() else []
    if part == "plan":
        found += [ROOT / "tests/unit/plan" / name for name in ("test_fit.py", "test_oracle.py")]
    else:
        found += sorted((ROOT / "tests/unit" / part).glob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in dict.fromkeys(found)]


def known(module: str) -> set[str]:
    """Changes of the module that are known to change nothing: ``module  change  # why``."""
    lines = EQUAL.read_text().splitlines() if EQUAL.exists() else []
    entries = (line.partition("#")[0].strip().partition(" ") for line in lines if line.strip())
    return {change.strip() for name, _, change in entries if name == module}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="hami.plan.charge")
    parser.add_argument("--tests", nargs="+", help="test files; those that mirror the module by default")
    parser.add_argument("--least", type=float, default=85.0, help="percent that must be noticed (85)")
    parser.add_argument("--first", type=int, help="only so many mutants, spread over the module")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    given = parser.parse_args()
    spec = importlib.util.find_spec(given.module)
    if spec is None or spec.origin is None:
        parser.error(f"{given.module}: no such module; name one like hami.plan.charge")
    text = Path(spec.origin).read_text()
    every = [one for one in mutants(text) if one.change not in known(given.module)]
    chosen = every if not given.first else every[:: max(1, len(every) // given.first)][: given.first]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(given.module, given.tests or tests_of(given.module), Path(folder))
        if not run.passes(text):
            parser.error(f"the tests fail without any change: {' '.join(run.tests)}")
        survivors = [one for one in chosen if run.passes(one.source)]
    killed = 100.0 * (len(chosen) - len(survivors)) / max(1, len(chosen))
    if given.output == "json":
        report = {"module": given.module, "mutants": len(chosen), "killed_percent": round(killed, 1),
                  "survivors": [one.where for one in survivors]}  # fmt: skip
        print(json.dumps(report, indent=2))
    else:
        for one in survivors:
            print(f"survived  {given.module}:{one.where}")
        print(f"{given.module}: {len(chosen) - len(survivors)} of {len(chosen)} mutants noticed, {killed:.1f} %")
    return 0 if killed >= given.least else 1


if __name__ == "__main__":
    sys.exit(main())
