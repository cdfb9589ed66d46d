"""Tests against one mutant: in a fork of a process that has imported and collected everything.

A change inside a function is put into the live function (`__code__`), so a trial costs a fork and the tests that
run its lines. A change outside of any needs a new import: a fork made before anything was imported.
"""

import functools
import gc
import importlib.abc
import importlib.util
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType

import pytest

CPU_S, TIMES = 1.5, 0.6
"""CPU seconds a test may take: so many and so many times what it takes, traced, without a change. Longer is hung, and
that is noticed."""
BUDGET_S = 4.0
"""CPU seconds after which no further test is begun for a mutant: what is left over are long tests of other parts."""
WHOLE_CPU_S, WALL_S = 120, 300
MEMORY = 6 << 30

HUNG = "(it hung)"
CRASHED = "(it broke the run)"


class Watch:
    """A pytest plugin: runs `work` in place of the tests, once they are collected, and notes what fails."""

    def __init__(self, work: Callable[[pytest.Session], None]) -> None:
        self._work = work
        self.failed: str | None = None
        self.tell: Callable[[str], None] = self._note
        """Told of a failure before anything is made of it: a report would take longer than most tests."""

    def _note(self, test: str) -> None:
        self.failed = self.failed or test

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._work(session)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        own = getattr(item, "_excinfo", None)  # where a unittest.TestCase, as stateful tests are, leaves what failed
        found = call.excinfo or (own[0] if own else None)
        if found is not None and not isinstance(found.value, pytest.skip.Exception):
            self.tell(item.nodeid)


def run_item(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def first_failure(watch: Watch, items: Sequence[tuple[pytest.Item, float]], prepare: Callable[[], None]) -> str | None:
    """The first of `items` that fails after `prepare`, None where all pass. Runs in a fork: nothing is changed here.

    With each item stands how many CPU seconds it takes.
    """

    def act(tell: Callable[[str], None]) -> None:
        prepare()
        watch.tell = tell
        for item, seconds in items:
            if time.process_time() > BUDGET_S:
                break
            _allow(CPU_S + TIMES * seconds)
            run_item(item)

    return forked(act)


def forked(act: Callable[[Callable[[str], None]], None]) -> str | None:
    """What `act` tells, run in a child that ends there; words in brackets if the child came to no end of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            _quiet()
            _limit()
            act(lambda text: _end(writer, text))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        answer = said.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return HUNG if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL) else CRASHED
    return CRASHED if status else answer or None


def _end(writer: int, text: str) -> None:
    told = text.encode()
    while told:
        told = told[os.write(writer, told) :]
    os._exit(0)


def _quiet() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (WHOLE_CPU_S, WHOLE_CPU_S + 600))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.alarm(WALL_S)


def _allow(more: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (min(most, math.ceil(time.process_time() + more)), most))


class Living:
    """The functions of some files, as they live in this process."""

    def __init__(self, files: Iterable[str]) -> None:
        wanted = set(files)
        self._of: dict[tuple[str, str, int], list[FunctionType]] = {}
        self._caches = []
        for one in gc.get_objects():
            if isinstance(one, FunctionType) and one.__code__.co_filename in wanted:
                self._of.setdefault(_key(one.__code__), []).append(one)
            elif isinstance(one, functools._lru_cache_wrapper):
                self._caches.append(one)

    def become(self, unit: str, code: CodeType) -> None:
        """The function `unit` does from now on what it does in the module `code`."""
        found = False
        for new in _functions(code):
            if new.co_qualname == unit:
                for function in self._of.get(_key(new), ()):
                    function.__code__ = new
                    found = True
        if not found:
            raise LookupError(unit)
        for cache in self._caches:
            cache.cache_clear()


def _key(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _functions(code: CodeType) -> Iterable[CodeType]:
    """Functions and methods of a module, without those inside of others."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & 0x2:  # CO_NEWLOCALS: a function; class bodies have none
                yield part
            else:
                yield from _functions(part)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in place of its module."""

    def __init__(self, module: str, file: str, code: CodeType) -> None:
        self._module, self._file, self._code = module, file, code

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self._module:
            return None
        package = [str(Path(self._file).parent)] if self._file.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(name, self._file, loader=self, submodule_search_locations=package)

    def exec_module(self, module: object) -> None:
        exec(self._code, vars(module))


def first_failure_anew(finder: Finder, arguments: Sequence[str], plugins: Sequence[object] = ()) -> str | None:
    """The first test that fails, with everything imported anew. Call it where nothing of ours is imported yet."""

    def act(tell: Callable[[str], None]) -> None:
        sys.meta_path.insert(0, finder)
        sys.dont_write_bytecode = True
        if pytest.main(["-x", *arguments], plugins=[_Notes(tell), *plugins]):
            tell(CRASHED)

    return forked(act)


class _Notes:
    """Only tells what fails; the tests run as usual."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._watch = Watch(lambda session: None)
        self._watch.tell = tell
        self.pytest_runtest_makereport = self._watch.pytest_runtest_makereport
