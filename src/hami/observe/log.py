"""Log lines: a fixed event name and fields, as JSON for machines or text for people.

    log = logging.getLogger(__name__)
    log.info("bound", extra={"took_ms": 3.1})

Fields of `extra` stand on the line as they are; fields of `bound` stand on every
line within it, in the same task and those it starts.
"""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Literal, TextIO

import msgspec

from hami.observe.build import build

Format = Literal["json", "text"]
_context: ContextVar[Mapping[str, object]] = ContextVar("hami_log_context", default=MappingProxyType({}))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_encode = msgspec.json.Encoder(enc_hook=str).encode


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Put fields (`pod`, `node`, `card`) on all lines within."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def setup(format: Format = "json", level: str | int = "INFO", stream: TextIO | None = None) -> None:  # noqa: A002
    """Make the root logger write this way, and no other. Raises ValueError for an unknown level."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper() if isinstance(level, str) else level)
    logging.captureWarnings(True)


def started(program: str, **fields: object) -> None:
    """The first line of a program: which build, where it stands."""
    logging.getLogger(f"hami.{program}").info("started", extra={**msgspec.structs.asdict(build()), **fields})


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Context and extra fields; what is nearer wins."""
    own = {key: value for key, value in vars(record).items() if key not in _STANDARD}
    return {**_context.get(), **own}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg, then the fields, then a trace."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        for key, value in fields_of(record).items():
            line[f"{key}_" if key in line else key] = value
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class TextFormatter(logging.Formatter):
    """``2026-11-02T10:00:00.123Z INFO  hami.kube.watch: relist path=/api/v1/pods``."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_stamp(record.created)} {record.levelname:<7} {record.name}: {record.getMessage()}"
        fields = "".join(f" {key}={_shown(value)}" for key, value in fields_of(record).items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return head + fields + trace


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    plain = text.isprintable() and not any(mark in text for mark in ' "=')
    return text if text and plain else _encode(text).decode()


def _stamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
