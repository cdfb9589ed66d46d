"""Which test runs which lines: made once for a state of sources and tests, kept outside the tree."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

Lines = dict[str, list[int]]
"""Lines run, by file."""


class Tracer:
    """Notes the lines of some files that are run while it is on. Everything else runs at almost full speed."""

    def __init__(self, files: set[str]) -> None:
        self._files = files
        self.seen: dict[str, set[int]] = {}

    def run(self, act: Callable[[], object]) -> tuple[Lines, float]:
        """What `act` runs, and the CPU seconds it took."""
        self.seen = {}
        began = time.process_time()
        sys.settrace(self._call)
        try:
            act()
        finally:
            sys.settrace(None)
        return {file: sorted(lines) for file, lines in self.seen.items()}, time.process_time() - began

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        file = frame.f_code.co_filename
        if file not in self._files:
            return None
        lines = self.seen.setdefault(file, set())
        lines.add(frame.f_lineno)

        def line(frame: FrameType, event: str, argument: object) -> Any:
            lines.add(frame.f_lineno)
            return line

        return line


class Map:
    """Tests by line. A test is its pytest node id."""

    def __init__(self, runs: dict[str, tuple[Lines, float]]) -> None:
        self.seconds = {test: seconds for test, (_, seconds) in runs.items()}
        self._tests: dict[tuple[str, int], list[str]] = {}
        for test, (lines, _) in runs.items():
            for file, numbers in lines.items():
                for number in numbers:
                    self._tests.setdefault((file, number), []).append(test)

    def of(self, file: str, lines: frozenset[int]) -> set[str]:
        """Tests that run any of these lines."""
        return {test for line in lines for test in self._tests.get((file, line), ())}

    def seconds_of_files(self) -> Counter[Path]:
        """What all tests of each file take."""
        total: Counter[Path] = Counter()
        for test, seconds in self.seconds.items():
            total[Path(test.partition("::")[0])] += seconds  # type: ignore[assignment]
        return total

    def of_file(self, file: str) -> set[Path]:
        """Test files that run any of it, import aside."""
        tests = {test for (name, _), found in self._tests.items() if name == file for test in found}
        return {Path(test.partition("::")[0]) for test in tests}
