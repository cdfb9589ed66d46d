"""The mutation tester itself: what it changes, that it takes it back, and that living functions become the mutant."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parent.parent.parent.parent / "tools"
TEXT = '''
"""Docstring."""
from typing import NewType

Name = NewType("Name", str)
LIMIT: int | None = 3


def least(a: int | None, b: int = 2) -> "str":
    """Doc."""
    if a is not None and a < b:
        return f"less by {b - a:>3}"
    found = [one for one in (1, 2) if one]
    found.sort()
    return ""


class Box:
    __slots__ = ("x",)

    def put(self, x: int) -> bool:
        self.x = max(x, 0)
        return False
'''


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(TOOLS))
    import mutation.change
    import mutation.kept
    import mutation.trial

    yield mutation
    for name in [name for name in sys.modules if name.partition(".")[0] == "mutation"]:
        del sys.modules[name]


def test_behaviour_is_changed_and_what_types_and_people_read_is_not(mutation: ModuleType) -> None:
    found = [one.name for one in mutation.change.Module("m", TEXT).mutants]
    assert found == [
        "m (module): 3  ->  4",
        "m (module): 2  ->  3",
        "m least: if a is not None and a < b:  ->  if not (a is not None and a < b):",
        "m least: a is not None and a < b  ->  a is not None or a < b",
        "m least: a is not None  ->  a is None",
        "m least: a < b  ->  a <= b",
        "m least: return f'less by {b - a:>3}'  ->  return None",
        "m least: 'less by '  ->  'less by x'",
        "m least: b - a  ->  b + a",
        "m least:  for one in (1, 2) if one  ->   for one in (1, 2) if not one",
        "m least: 1  ->  2",
        "m least: 2  ->  3",
        "m least: found.sort()  ->  pass",
        "m least: return ''  ->  return None",
        "m least: ''  ->  'x'",
        "m Box.put: max  ->  min",
        "m Box.put: 0  ->  1",
        "m Box.put: False  ->  True",
    ]


def test_each_change_is_one_and_is_taken_back(mutation: ModuleType) -> None:
    module = mutation.change.Module("m", TEXT)
    plain = ast.dump(module._tree)
    codes = {
        module.code(one, "m.py").co_code + repr(_constants(module.code(one, "m.py"))).encode() for one in module.mutants
    }
    assert len(codes) == len(module.mutants)
    assert ast.dump(module._tree) == plain


def _constants(code: object) -> object:
    consts = getattr(code, "co_consts", ())
    return [(_constants(one), one.co_code) if hasattr(one, "co_code") else one for one in consts]


def test_a_living_function_becomes_the_mutant_and_only_that_one(mutation: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "living.py"
    file.write_text(TEXT)
    living = ModuleType("living")
    exec(compile(TEXT, str(file), "exec"), vars(living))
    module = mutation.change.Module("living", TEXT)
    (mutant,) = (one for one in module.mutants if one.change == "a < b  ->  a <= b")
    assert living.least(2, 2) == ""
    mutation.trial.Living([str(file)]).become(mutant.unit, module.code(mutant, str(file)))
    assert living.least(2, 2) == "less by   0"
    with pytest.raises(LookupError):
        mutation.trial.Living([]).become("no.such", module.code(mutant, str(file)))


def test_what_happens_in_a_fork_is_told_and_stays_there(mutation: ModuleType) -> None:
    told: list[int] = []

    def act(tell: object) -> None:
        told.append(1)
        tell("x" * 100_000)  # type: ignore[operator]

    assert mutation.trial.forked(act) == "x" * 100_000
    assert mutation.trial.forked(lambda tell: None) is None
    assert mutation.trial.forked(lambda tell: 1 / 0) == mutation.trial.CRASHED
    assert told == []


def test_two_runs_at_once_keep_the_results_of_both(mutation: ModuleType, tmp_path: Path) -> None:
    one, two = (mutation.kept.Cache(tmp_path, ()) for _ in range(2))
    first, second, third = mutation.change.Module("m", TEXT).mutants[:3]
    one.put(first, "tests/a.py::test")
    two.put(second, None)
    one.save()
    two.save()
    one.put(third, None)
    one.save()
    later = mutation.kept.Cache(tmp_path, ())
    assert [later.tried(mutant) for mutant in (first, second, third)] == [True, True, True]
    assert (later.hint(first), later.hint(second)) == ("tests/a.py::test", None)
    two.reread()
    assert two.tried(third)
