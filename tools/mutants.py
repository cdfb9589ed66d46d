"""Mutation testing: break the code in small ways, one at a time, and see whether its tests notice.

    make mutants MODULE=hami.plan.exact.charge
    python tools/mutants.py hami.plan hami.ledger                 # every module of both
    python tools/mutants.py hami.plan hami.ledger -o markdown     # the table of docs/reference/mutants.md

The tree is not touched. Only tests that run a changed line are run against it, the likeliest first; which those are,
and what came out, is kept in ~/.cache/hami (another folder: XDG_CACHE_HOME), so that a second run does what changed.
Exit code 0: enough were noticed in every module; 1: too few; 2: the call was wrong or the tests fail anyway.
A survivor is a test that is missing, or a change that changes nothing a caller could see: those are explained in
tools/mutants-equal.txt, and count as survivors all the same.
"""

import argparse
import gc
import importlib.util
import json
import os
import random
import resource
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec  # noqa: F401 - imported once, before the forks
import numpy  # noqa: F401
import pytest
from mutation.change import Module, Mutant
from mutation.cover import Map, Tracer
from mutation.kept import ROOT, Cache, digest, file_of, files_of
from mutation.trial import Finder, Living, Watch, first_failure, first_failure_anew, forked, run_item

SOURCES = ROOT / "src"
EQUAL = ROOT / "tools/mutants-equal.txt"
TESTS = ("tests/unit/plan", "tests/unit/ledger", "tests/unit/scheduler", "tests/unit/cli/test_look.py")
PYTEST = ("-q", "-p", "no:cacheprovider", "--timeout=0", "-m", "not lab and not node and not gpu and not realtime")
KEPT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hami/mutants"

JUDGES = (
    "tests/unit/plan/test_oracle.py",
    "tests/unit/plan/test_together.py",
    "tests/unit/plan/test_world.py",
    "tests/unit/ledger/test_machine.py",
)
"""Property tests of everything: slow, and hard to deceive."""
OWN_SETTINGS = "_hypothesis_internal_use_settings"
"""Where Hypothesis keeps what a test was decorated with."""

ANEW_S = 4.0
"""CPU seconds, traced, of the tests that are run where everything is imported anew: the quickest of those files that
mirror the module first, then other files as a whole, the quickest first."""

Outcome = dict[Mutant, str | None]
"""By mutant: the test that noticed, or None."""


class Repeatable:
    """Makes the examples of property tests the same in every run, a quarter of them, and a failing one cheap."""

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants", settings.default, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
        )
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        from hypothesis import settings

        seen = set()
        for item in items:
            function, home = getattr(item, "obj", None), getattr(item, "cls", None)
            for owner, name in ((getattr(function, "__func__", function), OWN_SETTINGS), (home, "settings")):
                own = getattr(owner, name, None)
                if isinstance(own, settings) and owner not in seen:
                    seen.add(owner)
                    setattr(owner, name, settings(own, max_examples=max(10, own.max_examples // 4)))


class Only:
    """Runs these tests and no others of the files that are collected."""

    def __init__(self, tests: Set[str]) -> None:
        self._tests = tests

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._tests]


class Session:
    """One pytest session that has collected everything and never runs it as a whole."""

    def __init__(self, modules: dict[str, Module], files: dict[str, str], cache: Cache, tests: Sequence[str]) -> None:
        self._modules, self._files, self._cache, self._tests = modules, files, cache, tests
        self._watch = Watch(self._work)
        self._todo: list[Mutant] = []
        self.map_file = KEPT / f"lines-{zlib.crc32(repr((str(ROOT), *tests)).encode()):08x}.json"

    def run(self, todo: Sequence[Mutant]) -> str | None:
        """Try every mutant that is inside of a function; in a fork, so that this process imports nothing of it."""
        self._todo = list(todo)
        terminal = os.dup(2)
        self._say = lambda text: os.write(terminal, text.encode())  # type: ignore[method-assign]
        child = os.fork()
        if child == 0:
            code = 3
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                code = int(pytest.main([*PYTEST, *self._tests], plugins=[self._watch, Repeatable()]))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return None if status == 0 else f"the session ended with {os.waitstatus_to_exitcode(status)}"

    def _say(self, text: str) -> object:
        return sys.stderr.write(text)

    def _work(self, session: pytest.Session) -> None:
        items = {item.nodeid: item for item in session.items}
        found = self._map(items)
        living = Living(self._files.values())
        gc.collect()
        gc.freeze()  # forks share what is never touched
        killers: dict[str, Counter[str]] = {}
        for number, mutant in enumerate(self._todo):
            file = self._files[mutant.module]
            near, far = (killers.setdefault(of, Counter()) for of in (f"{file} {mutant.unit}", mutant.module))
            hint, own = self._cache.hint(mutant), f"/test_{Path(file).stem}.py"

            def worth(test: str, near=near, far=far, hint=hint, own=own) -> float:  # type: ignore[no-untyped-def]
                """The likeliest to notice, for its time, comes first."""
                likely = 50 * (test == hint) + 20 * near[test] + far[test] + 2 * (own in test) + 0.02
                return -(likely + 20 * (file_of(test) in JUDGES)) / (0.02 + found.seconds[test])

            chosen = sorted(found.of(file, mutant.lines) & items.keys(), key=worth)
            if not chosen:
                continue  # no test runs it, but an import may: `anew`
            code = self._modules[mutant.module].code(mutant, file)
            by = first_failure(
                self._watch,
                [(items[test], found.seconds[test]) for test in chosen],
                lambda: living.become(mutant.unit, code),  # noqa: B023
            )
            near[by or ""] += 1
            far[by or ""] += 1
            self._cache.put(mutant, by)
            if number % 25 == 24:
                self._cache.save()
                self._say(f"{number + 1} of {len(self._todo)} mutants tried, {_cpu():.0f} s of CPU\n")
        self._cache.save()

    def _map(self, items: dict[str, pytest.Item]) -> Map:
        """Made anew for the tests of files that have changed, and for those that ran a source that has."""
        sources = {str(file): digest([file]) for file in files_of([SOURCES / "hami"])}
        states = {name: digest([ROOT / name]) for name in {file_of(test) for test in items}}
        kept = json.loads(self.map_file.read_text()) if self.map_file.exists() else {}
        runs = kept.get("runs", {}) if kept.get("tree") == str(ROOT) else {}  # another tree's files have other names
        changed = {file for file, state in sources.items() if runs and kept["sources"].get(file) != state}
        due = [
            test
            for test in items
            if test not in runs
            or kept["states"].get(file_of(test)) != states[file_of(test)]
            or changed & set(runs[test][0])
        ]
        tracer = Tracer({str(path) for path in SOURCES.rglob("*.py")})
        for number, test in enumerate(due):
            item = items[test]
            runs[test] = json.loads(forked(lambda tell: tell(self._traced(tracer, item))) or "null")  # noqa: B023
            if number % 50 == 49:
                self._say(f"{number + 1} of {len(due)} tests traced\n")
        runs = {test: run for test, run in runs.items() if test in items}
        new = self.map_file.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"tree": str(ROOT), "sources": sources, "states": states, "runs": runs}))
        new.replace(self.map_file)
        return Map(runs)

    def _traced(self, tracer: Tracer, item: pytest.Item) -> str:
        found = tracer.run(lambda: run_item(item))
        if self._watch.failed is not None:
            self._say(f"\nfails without any change: {item.nodeid}\n")
        return json.dumps(found)

    def lines(self) -> Map:
        return Map(json.loads(self.map_file.read_text())["runs"])


def anew(module: Module, mutant: Mutant, file: str, found: Map) -> str | None:
    """Try a mutant outside of any function, or in one that runs only at import: with everything imported again."""
    taken = found.seconds_of_files()
    named = {test for test in taken if test.stem[5:] in Path(file).with_suffix("").parts[-2:]}  # where nothing is run
    able = sorted(found.of_file(file) or named, key=taken.__getitem__)
    own = {str(test) for test in able if Path(file).stem in test.stem}
    single = sorted((one for one in found.seconds if file_of(one) in own), key=found.seconds.__getitem__)
    groups = [[one] for one in single] + [_all_of(test, found) for test in able if str(test) not in own]
    tests: set[str] = set()
    spent = 0.0
    for group in groups:
        takes = sum(found.seconds[one] for one in group)
        if not tests or spent + takes < ANEW_S:
            tests.update(group)
            spent += takes
    finder = Finder(mutant.module, file, module.code(mutant, file))
    given = sorted({file_of(one) for one in tests})
    return first_failure_anew(finder, [*PYTEST, *given], [Repeatable(), Only(tests)]) if tests else None


def _all_of(test: Path, found: Map) -> list[str]:
    return [one for one in found.seconds if file_of(one) == str(test)]


def _cpu() -> float:
    """Seconds that this process and its children took."""
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def modules_of(names: Sequence[str]) -> dict[str, str]:
    """File of each module named, and of each module below a package."""
    found = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(name, SOURCES / f"{name.replace('.', '/')}.py")
        path = SOURCES / name.replace(".", "/")
        if path.is_dir():
            for file in sorted(path.rglob("*.py")):
                own = file.relative_to(SOURCES).with_suffix("")
                found[".".join(own.parts).removesuffix(".__init__")] = str(file)
        elif spec is not None and spec.origin and Path(spec.origin).is_file():
            found[name] = spec.origin
        else:
            raise SystemExit(f"{name}: no such module; name one like hami.plan.exact.charge")
    return found


def explained() -> dict[str, str]:
    """Mutants that change nothing anybody could see, and why: ``module function: change  # why``."""
    lines = EQUAL.read_text().splitlines() if EQUAL.exists() else []
    entries = (line.partition("  # ") for line in lines if line.strip() and not line.startswith("#"))
    return {change.strip(): why.strip() for change, _, why in entries}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="+", help="modules or packages, like hami.plan.exact.charge or hami.ledger")
    parser.add_argument("--tests", nargs="+", default=TESTS, help=f"files or folders of tests ({' '.join(TESTS)})")
    parser.add_argument("--sample", type=int, help="only so many mutants of each module, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (1)")
    parser.add_argument("--least", type=float, default=85.0, help="percent that must be noticed (85)")
    parser.add_argument("--fresh", action="store_true", help="use no result of an earlier run")
    parser.add_argument("--survivors", action="store_true", help="try only those again that survived unexplained")
    parser.add_argument("--untried", action="store_true", help="try only those that no run has tried so far")
    parser.add_argument("--kept", action="store_true", help="try nothing, report what earlier runs found")
    parser.add_argument("-o", "--output", choices=("text", "json", "markdown"), default="text")
    given = parser.parse_args()
    os.chdir(ROOT)
    files = modules_of(given.module)
    modules = {name: Module(name, Path(file).read_text()) for name, file in files.items()}
    chosen = {name: _sampled(name, module.mutants, given) for name, module in modules.items()}
    cache, known = Cache(KEPT, given.tests), explained()
    if given.kept or (given.survivors and not given.untried):
        chosen = {name: [one for one in some if cache.tried(one)] for name, some in chosen.items()}
    every = [] if given.kept else [one for some in chosen.values() for one in some]
    todo = [one for one in every if given.fresh or not cache.known(one)]
    if given.survivors or given.untried:
        due = [one for one in todo if cache.hint(one) is None]
        again = [one for one in due if given.survivors and cache.tried(one) and one.name not in known]
        todo = again + [one for one in due if given.untried and not cache.tried(one)]
    random.Random(given.seed).shuffle(todo)  # a run that is cut short has tried a fair part
    session = Session(modules, files, cache, given.tests)
    if todo:
        problem = session.run([one for one in todo if one.unit])
        if problem is not None:
            print(problem, file=sys.stderr)
            return 2
        cache.reread()
        found = session.lines()
        for one in sorted(todo, key=lambda one: one.name in known):  # they take the longest
            if not one.unit or not found.of(files[one.module], one.lines):
                cache.put(one, anew(modules[one.module], one, files[one.module], found))
                cache.save()
    results = {name: {one: cache.hint(one) for one in some} for name, some in chosen.items()}
    return report(scores(modules, results), given.output, given.least)


def _sampled(name: str, every: list[Mutant], given: argparse.Namespace) -> list[Mutant]:
    if given.sample is None or given.sample >= len(every):
        return every
    return sorted(random.Random(f"{given.seed} {name}").sample(every, given.sample), key=lambda one: one.number)


@dataclass(frozen=True)
class Score:
    """One module, or all of them."""

    module: str
    mutants: int
    tried: int
    killed: int
    explained: int
    survivors: tuple[Mutant, ...] = ()

    @property
    def percent(self) -> float:
        return round(100.0 * self.killed / self.tried, 1)

    @property
    def open(self) -> int:
        """Survivors that nobody has explained."""
        return self.tried - self.killed - self.explained


def scores(modules: dict[str, Module], results: dict[str, Outcome]) -> list[Score]:
    known = explained()
    found = []
    for name, outcome in results.items():
        survivors = tuple(one for one, by in outcome.items() if by is None)
        told = sum(one.name in known for one in survivors)
        if outcome:
            every, tried = len(modules[name].mutants), len(outcome)
            found.append(Score(name, every, tried, tried - len(survivors), told, survivors))
    return found


def report(found: list[Score], output: str, least: float) -> int:
    known = explained()
    if output == "json":
        told = [
            {"module": one.module, "mutants": one.mutants, "tried": one.tried, "killed": one.killed,
             "killed_percent": one.percent, "explained": one.explained,
             "survivors": [f"{each.line}: {each.name}" for each in one.survivors]}
            for one in found
        ]  # fmt: skip
        print(json.dumps(told, indent=2))
    elif output == "markdown":
        print(_markdown(found))
    else:
        for one in found:
            for each in one.survivors:
                if each.name not in known:
                    print(f"survived  {each.line}: {each.name}")
            print(f"{one.module}: {one.killed} of {one.tried} noticed, {one.percent} %; "
                  f"{one.explained} explained, {one.open} not")  # fmt: skip
    return 0 if all(one.percent >= least for one in found) else 1


def _markdown(found: list[Score]) -> str:
    heads = ("module", "mutants", "tried", "killed", "score", "survivors explained", "not explained")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    sums = (sum(getattr(one, name) for one in found) for name in ("mutants", "tried", "killed", "explained"))
    for one in (*found, Score("all", *sums)):
        cells = (one.module, one.mutants, one.tried, one.killed, f"{one.percent} %", one.explained, one.open)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
