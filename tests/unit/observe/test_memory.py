"""What a process may still take is what its container's limit leaves."""

from pathlib import Path

import pytest

from hami.observe import memory

MIB = 1 << 20


def groups(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + "\n")
    return folder


def second(limit: str, used: int) -> dict[str, str]:
    return {"memory.max": limit, "memory.current": str(used)}


def first(limit: int, used: int) -> dict[str, str]:
    return {"memory/memory.limit_in_bytes": str(limit), "memory/memory.usage_in_bytes": str(used)}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (second(str(512 * MIB), 200 * MIB), 312 * MIB),
        (first(512 * MIB, 200 * MIB), 312 * MIB),
        (second(str(512 * MIB), 513 * MIB), 0),
        (second("max", 200 * MIB), None),
        (first(9223372036854771712, 200 * MIB), None),  # as the kernel writes "none" there
        ({}, None),
        ({"memory.max": str(512 * MIB)}, None),
        (second("max", 1) | first(512 * MIB, 200 * MIB), 312 * MIB),  # both versions are mounted, one has memory
    ],
)
def test_what_is_left_is_the_limit_less_what_is_used(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    assert memory.spare(groups(tmp_path, files)) == left


def test_here_it_is_read_from_the_kernels_own_files() -> None:
    left = memory.spare()
    assert left is None or left >= 0
