"""Faults, in one tree. Refusals are values (`model.refusal`), not exceptions.

    HamiError
    |- Malformed        somebody's input is wrong: says where, what, and what is allowed
    |- Conflict         the world moved on: plan again
    |  `- StaleGeneration
    |- Unavailable      a part is not there now: try again later
    |- ApiError         the API server's own answer (`kube.errors`)
    `- Bug              an invariant of ours is broken

Each fault knows whether trying again helps.
"""

from enum import Enum


class Retry(Enum):
    NEVER = "never"
    SOON = "soon"
    LATER = "later"


class HamiError(Exception):
    """Any fault of ours; its text is fit for a user to read."""

    retry = Retry.NEVER


class Malformed(HamiError):
    """Input that cannot be used. `path` is a JSON path, `allowed` the way out; a `value` of None is missing."""

    def __init__(self, path: str, value: object, allowed: str) -> None:
        self.path = path
        self.value = value
        self.allowed = allowed
        fault = "is missing" if value is None else f"{shorten(value)} is not usable"
        super().__init__(f"{path}: {fault}: {allowed}")


class Conflict(HamiError):
    """Somebody else was faster; the same request planned again may succeed."""

    retry = Retry.SOON


class StaleGeneration(Conflict):
    """A plan made on a node that has changed since."""


class Unavailable(HamiError):
    """A part this depends on does not answer now."""

    retry = Retry.LATER


class Bug(HamiError):
    """An invariant is broken. Never caught to go on: it ends the operation."""


def shorten(value: object, limit: int = 256) -> str:
    """A value as it may stand in a message: quoted, at most `limit` characters.

    256 keeps an event readable; Kubernetes cuts event messages at 1024.
    """
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
