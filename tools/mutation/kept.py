"""What mutants came to, kept between runs. Several runs may save at once: each adds what it found."""

import fcntl
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mutation.change import Mutant

ROOT = Path(__file__).resolve().parent.parent.parent

Results = dict[str, dict[str, str | None]]
"""By mutant and the text of its function: who noticed, and by what that was judged."""


class Cache:
    """Results kept between runs; a result holds while its function and what it was judged by stay the same."""

    def __init__(self, folder: Path, tests: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "results.json"
        self._all = self._read()
        self._new: Results = {}
        """What was put since the last save."""
        self._suite = digest(files_of(ROOT / one for one in tests))

    def known(self, mutant: Mutant) -> bool:
        kept = self._all.get(self._key(mutant))
        if kept is None:
            return False
        return kept["judge"] == (self._judge(kept["by"]) if kept["by"] else self._suite)

    def tried(self, mutant: Mutant) -> bool:
        """Whether it was ever tried, whatever the tests were then."""
        return self._key(mutant) in self._all

    def hint(self, mutant: Mutant) -> str | None:
        """Who noticed last time, even if that may no longer hold."""
        return self._all.get(self._key(mutant), {}).get("by")

    def put(self, mutant: Mutant, by: str | None) -> None:
        key = self._key(mutant)
        self._all[key] = self._new[key] = {"by": by, "judge": self._judge(by) if by else self._suite}

    def save(self) -> None:
        """Add what is new to what is there: other runs save too."""
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._all = self._read() | self._new
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(self._all, indent=0))
            new.replace(self._file)
        self._new.clear()

    def reread(self) -> None:
        self._all = self._read()

    def _read(self) -> "Results":
        found: Results = json.loads(self._file.read_text()) if self._file.exists() else {}
        return found

    @staticmethod
    def _key(mutant: Mutant) -> str:
        return f"{mutant.name}  {hashlib.sha256(mutant.unit_text.encode()).hexdigest()[:12]}"

    def _judge(self, test: str) -> str:
        file = ROOT / file_of(test)
        return digest([file]) if file.is_file() else self._suite


def file_of(test: str) -> str:
    return test.partition("::")[0]


def files_of(paths: Iterable[Path]) -> list[Path]:
    return sorted(file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py")))


def digest(files: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()[:16]
