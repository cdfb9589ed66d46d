"""What numbers and words in a program's settings may be. What may not is named as the option of the command line."""

from collections.abc import Iterable

from msgspec import Struct

from hami.model.errors import Malformed

LEVELS = ("debug", "info", "warning", "error")
LONGEST_S = 86400
MOST_QPS = 100_000


def require(settings: Struct, name: str, fine: bool, allowed: str) -> None:
    """Raises Malformed where the setting of that name is not `fine`."""
    if not fine:
        raise Malformed(f"--{name.replace('_', '-')}", getattr(settings, name), allowed)


def seconds(settings: Struct, names: Iterable[str], *, none: bool) -> None:
    """Spans of time; `none`: 0 may be. NaN may not, a comparison with which is false."""
    for name in names:
        value = getattr(settings, name)
        allowed = f"seconds, from 0 to {LONGEST_S}" if none else f"seconds, above 0 and at most {LONGEST_S}"
        require(settings, name, 0 <= value <= LONGEST_S and (none or value > 0), allowed)


def rates(settings: Struct, names: Iterable[str]) -> None:
    """So many a second; None is no limit."""
    for name in names:
        value = getattr(settings, name)
        fine = value is None or 0 < value <= MOST_QPS
        require(settings, name, fine, f"a number a second, above 0 and at most {MOST_QPS}")


def level(settings: Struct, name: str = "log_level") -> None:
    require(settings, name, getattr(settings, name).lower() in LEVELS, " or ".join(LEVELS))
